use super::*;
use crate::measures::REASONS;

/// Returns every rejection once. The match does not compile without a new one.
fn all() -> impl Iterator<Item = Rejection> {
    std::iter::successors(Some(Rejection::NotFound), |rejection| match rejection {
        Rejection::NotFound => Some(Rejection::UnknownEndpoint),
        Rejection::UnknownEndpoint => Some(Rejection::Gone),
        Rejection::Gone => Some(Rejection::VapidMissing),
        Rejection::VapidMissing => Some(Rejection::VapidWrong(VapidFault::Key)),
        Rejection::VapidWrong(_) => Some(Rejection::Throttled(1)),
        Rejection::Throttled(_) => Some(Rejection::Suspended(3600)),
        Rejection::Suspended(_) => Some(Rejection::QuotaUsedUp(3600)),
        Rejection::QuotaUsedUp(_) => Some(Rejection::UnknownMessage),
        Rejection::UnknownMessage => Some(Rejection::NotWaiting),
        Rejection::NotWaiting => Some(Rejection::EmptyBody),
        Rejection::EmptyBody => Some(Rejection::BodyTooLarge),
        Rejection::BodyTooLarge => Some(Rejection::BodyInterrupted),
        Rejection::BodyInterrupted => Some(Rejection::BadTtl),
        Rejection::BadTtl => Some(Rejection::BadTopic),
        Rejection::BadTopic => Some(Rejection::UnreadableHeader),
        Rejection::UnreadableHeader => Some(Rejection::NoKeyMaterial("Encryption")),
        Rejection::NoKeyMaterial(_) => Some(Rejection::BadKeyMaterial("salt")),
        Rejection::BadKeyMaterial("salt") => Some(Rejection::BadKeyMaterial("dh")),
        Rejection::BadKeyMaterial(_) => Some(Rejection::KeyMaterialTooLarge),
        Rejection::KeyMaterialTooLarge => Some(Rejection::SupersededEncoding),
        Rejection::SupersededEncoding => Some(Rejection::Unavailable),
        Rejection::Unavailable => Some(Rejection::InDoubt),
        Rejection::InDoubt => Some(Rejection::MethodNotAllowed("POST")),
        Rejection::MethodNotAllowed(_) => Some(Rejection::Panicked),
        Rejection::Panicked => None,
    })
}

/// Returns the header that a status must or should have; `None`: the status must not be sent at all.
pub(crate) fn demanded(status: StatusCode) -> Option<Option<HeaderName>> {
    Some(match status.as_u16() {
        401 => Some(header::WWW_AUTHENTICATE), // RFC 9110 §15.5.2
        405 => Some(header::ALLOW),            // RFC 9110 §15.5.6
        // The request was not read to its end, so the next bytes on the connection are no request (RFC 9112 §9.3).
        408 | 413 => Some(header::CONNECTION),
        415 => Some(header::ACCEPT_ENCODING), // RFC 9110 §15.5.16
        429 => Some(header::RETRY_AFTER),     // RFC 6585 §4
        503 => Some(header::RETRY_AFTER),     // RFC 9110 §15.6.4
        400 | 403 | 404 | 410 | 500 => None,
        _ => return None,
    })
}

#[test]
fn each_status_comes_with_what_http_demands_of_it() {
    for rejection in all() {
        let response = rejection.into_response();
        let status = response.status();
        let demanded = demanded(status).unwrap_or_else(|| panic!("{rejection:?}: {status} is in no table"));
        let headers = response.headers();
        if let Some(name) = demanded {
            assert!(headers.get(&name).is_some_and(|value| !value.is_empty()), "{rejection:?}: {name}");
        }
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{rejection:?}");
    }
}

/// Senders and their operators rely on all of these.
#[tokio::test]
async fn the_wire_form_of_a_refusal_is_stable() {
    let mut forms = String::new();
    for rejection in all() {
        let response = rejection.into_response();
        let headers = response.headers().iter().filter(|(name, _)| *name != header::CONTENT_LENGTH);
        let headers: Vec<_> =
            headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        forms += &format!("{status}\n{}\n{problem:#}\n\n", headers.join("\n"));
    }
    insta::assert_snapshot!(forms);
}

/// Returns the anchor that a forge makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

#[test]
fn a_problem_links_to_a_section_of_the_docs_and_its_reason_is_counted_from_the_start() {
    let problems = include_str!("../../../docs/problems.md");
    let anchors: Vec<String> = problems
        .split("```")
        .step_by(2) // Outside of code.
        .flat_map(str::lines)
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect();
    for rejection in all() {
        let Row { reason, status, section, .. } = rejection.row();
        assert!(anchors.iter().any(|anchor| anchor == section), "{rejection:?}: #{section}");
        let code = status.as_u16().to_string();
        assert!(section.contains(&code) || code == "404", "{rejection:?} is answered {code}: {section}");
        assert!(REASONS.contains(&reason), "{rejection:?}: REASONS lacks {reason}");
    }
}

#[test]
fn the_wait_is_told_in_whole_seconds_and_never_too_short() {
    let cases = [
        (TimeDelta::nanoseconds(1), 1),
        (TimeDelta::seconds(1), 1),
        (TimeDelta::milliseconds(1001), 2),
        (TimeDelta::seconds(60), 60),
    ];
    for (wait, seconds) in cases {
        assert_eq!(Rejection::throttled(wait), Rejection::Throttled(seconds), "{wait}");
    }
}
