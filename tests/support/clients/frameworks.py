"""Which libraries are run, in which versions, and how does a program configure each?"""

from tests.support.clients.sdks import NodeSdk, Sdk

_WEATHER = """
from pydantic import BaseModel

class Weather(BaseModel):
    place: str
    days: int
"""

ANTHROPIC = Sdk(
    name="anthropic-sdk",
    requirements=("anthropic==2.14.0",),
    start="""
import anthropic

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
asked = dict(model=MODEL, max_tokens=300, messages=[{"role": "user", "content": "hello"}])
""",
)

OPENAI = Sdk(
    name="openai-sdk",
    requirements=("openai==3.57.0",),
    start=_WEATHER
    + """
import openai

client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
question = "hello"

def asked():
    return dict(model=MODEL, messages=[{"role": "user", "content": question}])
""",
)

OPENAI_NODE = NodeSdk(
    package="openai",
    version="6.49.0",
    command="openai",
    beside=("zod@4.6.7",),
    start="""
const OpenAI = require("openai")
const client = new OpenAI({baseURL: URL + "/v1", apiKey: KEY, maxRetries: 0})
const asked = {model: MODEL, messages: [{role: "user", content: "hello"}]}
""",
    loop="""
const messages = [{role: "user", content: QUESTION}]
const runner = client.chat.completions.runTools({
  model: MODEL, messages, tools: [TOOL], temperature: 0,
})
return runner.finalContent()
""",
    streamed="""
const messages = [{role: "user", content: QUESTION}]
const runner = client.chat.completions.runTools({
  model: MODEL, messages, tools: [TOOL], temperature: 0, stream: true,
})
return runner.finalContent()
""",
)

LANGCHAIN = Sdk(
    name="langchain",
    requirements=("langchain==1.5.2", "langchain-anthropic==1.7.4", "langchain-openai==1.7.4"),
    start=_WEATHER
    + """
import openai
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

model = ChatOpenAI(base_url=URL + "/v1", api_key=KEY, model=MODEL, max_retries=0, temperature=0)
""",
    loop="""
agent = create_agent(model, [TOOL])
print(json.dumps(agent.invoke({"messages": [("user", QUESTION)]})["messages"][-1].text))
""",
    streamed="""
agent = create_agent(model, [TOOL])
parts = agent.stream({"messages": [("user", QUESTION)]}, stream_mode="messages")
print(json.dumps("".join(part.text for part, _ in parts if part.type == "AIMessageChunk")))
""",
)

OPENAI_AGENTS = Sdk(
    name="openai-agents",
    requirements=("openai-agents==0.24.0",),
    start=_WEATHER
    + """
import asyncio
import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner
from agents import function_tool, set_tracing_disabled

set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
exact = ModelSettings(temperature=0)

async def streamed(agent, question):
    result = Runner.run_streamed(agent, question)
    async for event in result.stream_events():
        pass
    return result.final_output
""",
    loop="""
agent = Agent(name="a", model=model, tools=[function_tool(TOOL)], model_settings=exact)
print(json.dumps(Runner.run_sync(agent, QUESTION).final_output))
""",
    streamed="""
agent = Agent(name="a", model=model, tools=[function_tool(TOOL)], model_settings=exact)
print(json.dumps(asyncio.run(streamed(agent, QUESTION))))
""",
)

INSTRUCTOR = Sdk(
    name="instructor",
    requirements=("instructor==1.17.0",),
    start=_WEATHER
    + """
import instructor
import openai

plain = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
asked = dict(model=MODEL, messages=[{"role": "user", "content": "hello"}])
""",
)

PYDANTIC_AI = Sdk(
    name="pydantic-ai",
    requirements=("pydantic-ai-slim[openai]==2.68.0",),
    start=_WEATHER
    + """
from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=URL + "/v1", api_key=KEY))
""",
    loop="""
agent = Agent(model, tools=[TOOL], model_settings={"temperature": 0})
print(json.dumps(agent.run_sync(QUESTION).output))
""",
)

LITELLM = Sdk(
    name="litellm",
    requirements=("litellm==1.108.7",),
    variables={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    start="""
import asyncio
import litellm

place = dict(api_base=URL + "/v1", api_key=KEY, num_retries=0)
asked = dict(place, messages=[{"role": "user", "content": "hello"}])
""",
)

LLAMA_INDEX = Sdk(
    name="llama-index",
    requirements=("llama-index-llms-openai-like==0.8.1",),
    start=_WEATHER
    + """
import asyncio
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model=MODEL, api_base=URL + "/v1", api_key=KEY, max_retries=0, temperature=0,
    is_chat_model=True, is_function_calling_model=True, context_window=400_000,
)
asked = [ChatMessage(role="user", content="hello")]
""",
    loop="""
async def ask():
    return str(await FunctionAgent(tools=[TOOL], llm=model).run(QUESTION))

print(json.dumps(asyncio.run(ask())))
""",
)

SMOLAGENTS = Sdk(
    name="smolagents",
    requirements=("smolagents[openai]==1.26.0",),
    start="""
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

model = OpenAIModel(model_id=MODEL, api_base=URL + "/v1", api_key=KEY, temperature=0)
""",
    loop="""
agent = ToolCallingAgent(tools=[tool(TOOL)], model=model, verbosity_level=0)
print(json.dumps(agent.run(QUESTION)))
""",
)
