"""Real Chromium, without a window. The argument is a JSON list of what to do, and a JSON list of what came of it is printed:

{"open": URL}                       opens a page; gives its text
{"submit": {ID: TEXT, …}}           fills the form of that page in and sends it; gives what the page says then
{"run": "JavaScript"}               runs the body of an asynchronous function in that page; gives what it returns
{"screenshot": FILE}                writes a picture of that page
{"console": true}                   gives what the browser has complained of in that page, whatever is in a policy's way
"""

import json
import sys

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

DEADLINE_SECONDS = 120


def browser():
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_script_timeout(DEADLINE_SECONDS)
    return driver


def submit(driver, fields):
    for name, text in fields.items():
        field = driver.find_element(By.ID, name)
        field.clear()
        field.send_keys(text)
    driver.find_element(By.TAG_NAME, "button").click()
    output = driver.find_element(By.TAG_NAME, "output")
    said = lambda _: output.text not in ("", "Sending …") and output.text
    return WebDriverWait(driver, DEADLINE_SECONDS).until(said)


def run(driver, script):
    return driver.execute_async_script(
        "const done = arguments[0]; (async () => {" + script + "})().then(done, (error) => done(String(error)));"
    )


def do(driver, task):
    match task:
        case {"open": url}:
            driver.get(url)
            return driver.find_element(By.TAG_NAME, "body").text
        case {"submit": fields}:
            return submit(driver, fields)
        case {"run": script}:
            return run(driver, script)
        case {"screenshot": file}:
            return driver.save_screenshot(file)
        case {"console": _}:
            return [entry["message"] for entry in driver.get_log("browser")]


driver = browser()
try:
    print(json.dumps([do(driver, task) for task in json.loads(sys.argv[1])]))
finally:
    driver.quit()
