"""What can a newcomer paste once the cluster is ready?"""


def ready_text(url: str, model_name: str, run_dir: str) -> str:
    """The URL and three ways to use it: curl, the openai package, our own chat."""
    return f"""\
Ready: {url}   (OpenAI-compatible, model name: {model_name})

  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{model_name}", "messages": [{{"role": "user", "content": "What is 12 + 30?"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  reply = client.chat.completions.create(
      model="{model_name}", messages=[{{"role": "user", "content": "What is 12 + 30?"}}])
  print(reply.choices[0].message.content)

  expertmesh chat --base-url {url}

API pages: {url}/docs   metrics: {url}/metrics   logs: {run_dir}"""
