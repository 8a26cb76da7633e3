//! Real Chromium, which fills in forms and runs scripts.

use serde_json::Value;

use crate::slixmpp::python;
use crate::web_push::{run, script};

/// Has it do these, one after the other in one window, and returns what came of each: see `senders/browser.py`.
pub async fn browse(tasks: &[Value]) -> Vec<Value> {
    let results = run(script(python().as_ref(), "browser.py").arg(Value::from(tasks).to_string())).await;
    serde_json::from_value(results).expect("a list of results")
}
