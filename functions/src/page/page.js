
"use strict";

const form = document.querySelector("form");
const output = document.querySelector("output");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  output.textContent = "Sending …";
  try {
    output.textContent = await send(form.endpoint.value.trim(), form.text.value);
  } finally {
    button.disabled = false;
  }
});

async function send(endpoint, text) {
  const token = endpoint.match(/\/push\/([^/?#]+)$/)?.[1];
  if (!token) {
    return "This is not an endpoint: those of this server end in /push/ and some fifty letters, digits, - and _.";
  }
  // Wherever the endpoint says that the server is: here is where this page came from.
  const here = new URL(location.pathname.replace(/\/?$/, "/"), location.origin);
  let answer;
  try {
    answer = await fetch(new URL(`push/${token}`, here), { method: "POST", headers: { TTL: "300" }, body: text });
  } catch {
    return "The server did not answer. Is this device online?";
  }
  if (answer.status === 201) {
    return accepted(Number(answer.headers.get("TTL")));
  }
  const problem = await answer.json().catch(() => ({ title: answer.statusText, detail: "" }));
  const wait = answer.headers.get("Retry-After");
  return `${answer.status}: ${problem.title}. ${problem.detail}${wait ? ` (Wait ${wait} s.)` : ""}`;
}

function accepted(seconds) {
  return `201: the push was accepted. If the phone is online it has it by now; if not, it gets it when it is back
within ${seconds} seconds. If nothing shows: the app may show only what its own server has encrypted.`;
}
