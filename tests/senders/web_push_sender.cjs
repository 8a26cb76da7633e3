// An application server on web-push: sends one push, as its one argument says, and prints what was answered.
//
// The argument and the answer are JSON; tests/src/web_push.rs has their fields.

const webPush = require("web-push");

const request = JSON.parse(process.argv[2]);
const { endpoint, p256dh, auth, payload, encoding, ttl, urgency, topic, vapid } = request;
const options = { contentEncoding: encoding, TTL: ttl, urgency, timeout: 30000 };
if (topic) options.topic = topic;
if (vapid) {
  options.vapidDetails = {
    subject: "mailto:sender@example.com",
    publicKey: vapid.public,
    privateKey: vapid.private,
  };
}
webPush
  .sendNotification({ endpoint, keys: { p256dh, auth } }, payload, options)
  .catch((error) => {
    // Any other error than an answer it did not expect is the end.
    if (!error.statusCode) throw error;
    return error;
  })
  .then(({ statusCode, headers, body }) => console.log(JSON.stringify({ status: statusCode, headers, body })));
