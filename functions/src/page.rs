//! The page at the root. It says what this server is and what to enter on a phone, and can send a test push.

use std::sync::Arc;

use axum::{
    http::{HeaderName, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jid::BareJid;
use sha2::{Digest, Sha256};

pub(crate) const METHODS: &str = "GET, HEAD";

const DOCUMENT: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// One hour: after that, browsers see the page of a new version of the server.
const CACHE_CONTROL: &str = "max-age=3600";

/// The whole page. It loads nothing else, and connects to no other host.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    document: Arc<str>,
    policy: Arc<str>,
}

impl Page {
    /// Makes the page. It names the component, which people enter in Conversations.
    pub(crate) fn new(component: Option<&BareJid>) -> Self {
        let component = match component {
            Some(jid) => format!(
                "<p>In Conversations: <em>Settings → UnifiedPush Distributor</em>. Choose your XMPP account, and enter as \
                 push server <code id=\"component\">{}</code>.</p>",
                jid.as_str().replace('&', "&amp;").replace('<', "&lt;")
            ),
            None => "<p>In Conversations: <em>Settings → UnifiedPush Distributor</em>. The name of the push server, which \
                     you enter there, is known to whoever runs this one.</p>"
                .to_owned(),
        };
        let document =
            DOCUMENT.replace("{style}", STYLE).replace("{script}", SCRIPT).replace("{component}", &component);
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; form-action 'none'; \
             base-uri 'none'; frame-ancestors 'none'",
            source(STYLE),
            source(SCRIPT)
        );
        Self { document: document.into(), policy: policy.into() }
    }

    /// Answers `GET` and `HEAD`.
    pub(crate) fn answer(&self) -> Response {
        let headers: [(HeaderName, &str); 4] = [
            (header::CONTENT_SECURITY_POLICY, &self.policy),
            (header::CACHE_CONTROL, CACHE_CONTROL),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (headers, Html(self.document.to_string())).into_response()
    }
}

/// Returns the hash by which a browser accepts exactly this text (CSP level 3, §2.3.1).
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_named_and_cannot_be_markup() {
        let page = Page::new(Some(&BareJid::new("notify.example.com").unwrap()));
        assert!(page.document.contains("<code id=\"component\">notify.example.com</code>"));
        assert!(["{component}", "{style}", "{script}"].iter().all(|place| !page.document.contains(place)));
        for hostile in ["<script>.example.com", "a&b.example.com"] {
            let Ok(jid) = BareJid::new(hostile) else { continue };
            assert!(!Page::new(Some(&jid)).document.contains(hostile));
        }
    }
}
