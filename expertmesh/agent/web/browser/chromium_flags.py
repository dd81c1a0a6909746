"""How is chromium told to use the proxy for everything, and to do nothing by itself?"""

import json

PREFERENCES = json.dumps({"net": {"network_prediction_options": 2}})
"""Of Default/Preferences in a profile: no lookups and connections ahead of what a page asks for."""

OWN_HOST = "browser.invalid"
"""Where its own requests go (searches, accounts, components): RFC 6761 says that there is none."""

_DISABLED_FEATURES = (
    "NetworkTimeServiceQuerying,MediaRouter,DialMediaRouteProvider,OptimizationHints,Translate,"
    "AutofillServerCommunication,CertificateTransparencyComponentUpdater"
)
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--hide-scrollbars",
    "--blink-settings=imagesEnabled=false",
    # No requests of its own.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-component-extensions-with-background-pages",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--disable-client-side-phishing-detection",
    "--disable-breakpad",
    "--no-pings",
    "--metrics-recording-only",
    f"--google-base-url=http://{OWN_HOST}/",
    f"--gaia-url=http://{OWN_HOST}/",
    f"--component-updater=url-source=http://{OWN_HOST}/,disable-pings",
    f"--disable-features={_DISABLED_FEATURES}",
    # No way but the proxy. Chromium goes around one for loopback, unless it is told otherwise,
    # and sends WebRTC's packets to whatever address a page names. Without lookups of its own there
    # are none to send ahead; what goes through a proxy needs none.
    "--proxy-bypass-list=<-loopback>",
    "--disable-quic",
    "--dns-prefetch-disable",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


def chromium_argv(executable: str, profile: str, proxy_port: int | str) -> list[str]:
    """The command of a browser that waits for DevTools commands on its descriptors 3 and 4.

    `--no-sandbox` is not among the flags: where chromium cannot make its own sandbox, it ends.
    """
    return [
        executable,
        *_FLAGS,
        f"--user-data-dir={profile}",
        f"--proxy-server=http://127.0.0.1:{proxy_port}",
        "about:blank",
    ]
