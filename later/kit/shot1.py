import sys
from playwright.sync_api import sync_playwright
F=["--no-sandbox","--disable-gpu","--disable-quic","--disable-background-networking"]
with sync_playwright() as p:
    b=p.chromium.launch(executable_path="/usr/bin/chromium",args=F)
    pg=b.new_page(viewport={"width":int(sys.argv[3]) if len(sys.argv)>3 else 1100,"height":1200})
    pg.on("console",lambda m:print("console",m.text)); pg.on("pageerror",lambda e:print("err",e)); pg.on("request",lambda r: print("req",r.url[:80]))
    pg.goto("file://"+sys.argv[1]); pg.wait_for_timeout(1500); pg.screenshot(path=sys.argv[2],full_page=True)
