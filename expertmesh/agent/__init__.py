"""An agent with tools, for any server with OpenAI's API: what it runs, it runs in a sandbox."""
