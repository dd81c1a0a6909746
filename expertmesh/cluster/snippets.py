"""What can a user paste when the cluster is ready?"""


def ready_text(url: str, model_name: str, run_dir: str, *, needs_key: bool = False) -> str:
    """The URL and three ways to use it: curl, the openai package, our own chat.

    The key itself is not shown: the snippets take it from EXPERTMESH_API_KEY.
    """
    question = '"messages": [{"role": "user", "content": "What is 12 + 30?"}]'
    header = ' -H "Authorization: Bearer $EXPERTMESH_API_KEY"' if needs_key else ""
    key = 'os.environ["EXPERTMESH_API_KEY"]' if needs_key else '"none"'
    imports = "import os\n  " if needs_key else ""
    return f"""\
Ready: {url}   (OpenAI-compatible, model name: {model_name})

  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{header} \\
    -d '{{"model": "{model_name}", {question}}}'

  {imports}from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key={key})
  reply = client.chat.completions.create(
      model="{model_name}", messages=[{{"role": "user", "content": "What is 12 + 30?"}}])
  print(reply.choices[0].message.content)

  expertmesh chat --base-url {url}

API pages: {url}/docs   metrics: {url}/metrics   logs: {run_dir}"""
