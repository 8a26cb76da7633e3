//! A real Chromium, which fills in forms and runs scripts.

use serde_json::Value;

use crate::slixmpp::python;
use crate::web_push::{run, script};

/// Runs these tasks in order in one window, and returns the result of each; `senders/browser.py` describes them.
pub async fn browse(tasks: &[Value]) -> Vec<Value> {
    let results = run(script(python().as_ref(), "browser.py").arg(Value::from(tasks).to_string())).await;
    serde_json::from_value(results).expect("a list of results")
}
