"""SGLang's native API over the gateway's core."""
