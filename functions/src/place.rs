//! Paths as senders, proxies and their operators really write them, and the resources that they name.

/// The path of endpoints below the public URL.
pub const PUSH_PATH: &str = "push";

/// The path of push message resources below the public URL.
pub(crate) const MESSAGE_PATH: &str = "message";

/// Most bytes of a path below that of the public URL; a longer one is not read. Endpoints have at most 512 bytes
/// (docs/senders.md, "What senders do").
const PATH_BYTES_MAX: usize = 1024;

/// The resource that a path names. Empty segments do not count: a proxy may double a slash, or add one at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// The page for people.
    Page,
    /// The gateway for Matrix homeservers.
    Gateway,
    /// The push resource of this token, which may be anyone's.
    Push(&'a str),
    /// The push message resource of this token.
    Message(&'a str),
    /// A path that no route has, with its last segment. That segment may be a token of ours, which counts wherever it
    /// stands.
    Elsewhere(&'a str),
}

impl<'a> Place<'a> {
    /// Finds the resource of a request by its path, at the root or below `home`. A proxy may or may not strip the path
    /// of the public URL. `None`: the path is too long.
    pub(crate) fn of_request(path: &'a str, home: &str) -> Option<Self> {
        let segments = segments_within_bound(path, home)?;
        let at_the_root = Self::read(&segments);
        match without(&segments, home).map(Self::read) {
            Some(below) if matches!(at_the_root, Self::Elsewhere(_)) => Some(below),
            _ => Some(at_the_root),
        }
    }

    /// Finds the resource of a path below `home` alone.
    pub(crate) fn below(path: &'a str, home: &str) -> Option<Self> {
        without(&segments_within_bound(path, home)?, home).map(Self::read)
    }

    fn read(segments: &[&'a str]) -> Self {
        match segments {
            [] => Self::Page,
            ["_matrix", "push", "v1", "notify"] => Self::Gateway,
            [PUSH_PATH, token] => Self::Push(token),
            [MESSAGE_PATH, token] => Self::Message(token),
            [.., last] => Self::Elsewhere(last),
        }
    }
}

fn segments_within_bound<'a>(path: &'a str, home: &str) -> Option<Vec<&'a str>> {
    let is_within = path.len() <= home.len() + PATH_BYTES_MAX;
    is_within.then(|| segments(path).collect())
}

/// Returns the segments below `home`, if the path is below it.
fn without<'a, 'b>(mut segments: &'b [&'a str], home: &str) -> Option<&'b [&'a str]> {
    for expected in self::segments(home) {
        let (first, rest) = segments.split_first()?;
        if *first != expected {
            return None;
        }
        segments = rest;
    }
    Some(segments)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_segments_do_not_count_and_the_path_of_the_public_url_may_be_there() {
        let cases = [
            ("/", "/", Place::Page),
            ("//", "/", Place::Page),
            ("/up", "/up", Place::Page),
            ("/push/t", "/", Place::Push("t")),
            ("//push///t//", "/", Place::Push("t")),
            ("/push/t", "/up/", Place::Push("t")),
            ("/up//push/t/", "/up/", Place::Push("t")),
            ("/push/push/t", "/push", Place::Push("t")),
            ("/push/t", "/push", Place::Push("t")),
            ("/push", "/", Place::Elsewhere("push")),
            ("/other/push/t", "/up", Place::Elsewhere("t")),
            ("/upper/push/t", "/up", Place::Elsewhere("t")),
            ("/message/t/", "/", Place::Message("t")),
            ("/_matrix//push/v1/notify/", "/", Place::Gateway),
            ("/up/_matrix/push/v1/notify", "/up", Place::Gateway),
        ];
        for (path, home, place) in cases {
            assert_eq!(Place::of_request(path, home), Some(place), "{path} at {home}");
        }
    }

    #[test]
    fn a_pushkey_is_below_its_home() {
        assert_eq!(Place::below("/up//push/t", "/up/"), Some(Place::Push("t")));
        assert_eq!(Place::below("/up/x/t", "/up/"), Some(Place::Elsewhere("t")));
        assert_eq!(Place::below("/push/t", "/up/"), None);
        assert_eq!(Place::below("/upper/push/t", "/up"), None);
    }

    #[test]
    fn a_path_has_a_bound_below_the_public_urls_own() {
        for home in ["", "/up"] {
            let longest = format!("{home}/push/{}", "x".repeat(PATH_BYTES_MAX - "/push/".len()));
            assert!(matches!(Place::of_request(&longest, home), Some(Place::Push(_))));
            assert_eq!(Place::of_request(&format!("{longest}x"), home), None);
            assert_eq!(Place::below(&format!("{longest}x"), home), None);
        }
    }

    proptest! {
        #[test]
        fn slashes_more_or_less_change_nothing(
            segments in prop::collection::vec("(push|message|up|[a-z]{1,3})", 0..5),
            slashes in prop::collection::vec(1usize..4, 6),
        ) {
            let mut plain = String::new();
            let mut odd = "/".repeat(slashes[5]);
            for (segment, slashes) in segments.iter().zip(slashes) {
                plain += &format!("/{segment}");
                odd += &format!("{segment}{}", "/".repeat(slashes));
            }
            prop_assert_eq!(Place::of_request(&odd, "/up"), Place::of_request(&plain, "/up"));
        }
    }
}
