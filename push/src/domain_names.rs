//! Entries of access lists: domains, subdomains and users, in either form of internationalized names.

use std::borrow::Cow;

use jid::{BareJid, Jid};

/// Prefix of a domain that stands for its subdomains, and not for itself.
const SUBDOMAINS: &str = "*.";

/// Reads an entry: a domain, a bare JID, or `*.` and a domain. `None`: it is another pattern.
pub(crate) fn read(entry: &str) -> Option<Result<BareJid, jid::Error>> {
    let name = entry.strip_prefix(SUBDOMAINS).filter(|name| !name.contains('@')).unwrap_or(entry);
    // The syntax of a domain admits a star, so the JID contains it as written.
    (!name.contains(['*', '?'])).then(|| BareJid::new(name).and_then(|_| BareJid::new(entry)))
}

/// Returns whether an entry covers a user: it names the user, the user's domain, or `*.` and a parent of that domain.
pub(crate) fn covers(entry: &BareJid, user: &Jid) -> bool {
    let (named, domain) = (in_ascii(entry.domain().as_str()), in_ascii(user.domain().as_str()));
    let is_of_domain = match named.strip_prefix(SUBDOMAINS) {
        // A JID's domain has no empty label, so `below` is more than a dot.
        Some(parent) => domain.strip_suffix(parent).is_some_and(|below| below.ends_with('.')),
        None => named == domain,
    };
    is_of_domain && (entry.node().is_none() || entry.node() == user.node())
}

/// Returns a domain with A-labels, as in the DNS. Servers and operators write either form (RFC 5890 §2.3.2.1).
pub(crate) fn in_ascii(domain: &str) -> Cow<'_, str> {
    if domain.is_ascii() {
        return domain.into();
    }
    // A JID's domain has passed this conversion before, so it does not fail.
    idna::domain_to_ascii(domain).map_or(domain.into(), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(entry: &str, user: &str) -> bool {
        covers(&read(entry).unwrap().unwrap(), &user.parse().unwrap())
    }

    #[test]
    fn a_star_stands_for_subdomains_and_for_nothing_else() {
        assert!(admits("*.example.com", "juliet@chat.example.com/phone"));
        assert!(admits("*.example.com", "juliet@a.b.example.com/phone"));
        for outside in [
            "juliet@example.com",
            "juliet@evil-example.com",
            "juliet@example.com.evil.org",
            "x@evilexample.com",
        ] {
            assert!(!admits("*.example.com", outside), "{outside}");
        }
        for pattern in [
            "example.*",
            "*@example.com",
            "a*.example.com",
            "*.*.example.com",
            "juliet@*.example.com",
            "**",
            "?.example.com",
        ] {
            assert!(read(pattern).is_none(), "{pattern}");
        }
        for wrong in ["*.", "*.a b", "*..example.com"] {
            assert!(read(wrong).is_some_and(|entry| entry.is_err()), "{wrong}");
        }
    }

    #[test]
    fn both_forms_of_an_internationalized_name_are_one() {
        for entry in ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"] {
            for user in ["juliet@bücher.example/phone", "juliet@xn--bcher-kva.example/phone"] {
                assert!(admits(entry, user), "{entry}: {user}");
                assert!(admits(&format!("juliet@{entry}"), user), "{entry}: {user}");
                assert!(!admits(&format!("romeo@{entry}"), user), "{entry}: {user}");
            }
            assert!(!admits(entry, "juliet@bucher.example"), "{entry}");
        }
        for user in ["juliet@chat.bücher.example", "juliet@chat.xn--bcher-kva.example"] {
            assert!(admits("*.bücher.example", user) && admits("*.xn--bcher-kva.example", user), "{user}");
        }
    }
}
