"""What does /docs show? The OpenAPI description, on a page that needs nothing from the internet."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ExpertMesh API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
 code, pre { font-family: ui-monospace, monospace; font-size: .9em }
 pre { background: #8881; padding: .8rem; overflow-x: auto }
 details { border: 1px solid #8884; border-radius: .4rem; margin: .5rem 0; padding: .5rem .8rem }
 summary { cursor: pointer } b { display: inline-block; min-width: 3.5rem }
 table { border-collapse: collapse; width: 100%; margin-top: .5rem }
 td { border-top: 1px solid #8883; padding: .2rem .6rem .2rem 0; vertical-align: top }
</style></head><body>
<h1>ExpertMesh API</h1>
<p>OpenAI's API shape; the machine-readable description is
<a href="openapi.json">openapi.json</a>.</p>
<pre id="example"></pre>
<div id="paths">Loading.</div>
<script>
const element = (name, text) => {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  return node;
};
document.getElementById("example").textContent =
  "curl " + location.origin + "/v1/chat/completions -H 'Content-Type: application/json' \\\\\\n" +
  "  -d '{\\"model\\": \\"NAME\\", \\"messages\\": " +
  "[{\\"role\\": \\"user\\", \\"content\\": \\"Hello\\"}]}'";
fetch("openapi.json").then(reply => reply.json()).then(api => {
  const list = document.getElementById("paths");
  list.textContent = "";
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, about] of Object.entries(methods)) {
      const box = element("details"), head = element("summary");
      head.append(element("b", method.toUpperCase()), element("code", path));
      box.append(head, element("p", about.summary));
      const body = about.requestBody && about.requestBody.content["application/json"].schema;
      if (body) {
        const schema = api.components.schemas[body.$ref.split("/").pop()];
        const table = element("table");
        for (const [name, field] of Object.entries(schema.properties)) {
          const row = element("tr"), label = element("td");
          const kinds = (field.anyOf || [field]).map(one => one.type)
            .filter(one => one && one !== "null");
          label.append(element("code", name));
          row.append(label, element("td", kinds.join(" or ")),
            element("td", (schema.required || []).includes(name) ? "required" : ""),
            element("td", field.description || ""));
          table.append(row);
        }
        box.append(table);
      }
      list.append(box);
    }
});
</script></body></html>
"""

_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


async def docs_page(request: Request) -> Response:
    """The page; its content security policy forbids every other host."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})
