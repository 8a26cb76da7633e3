//! Users' requests that wait for the store. Each account has a share of the room, and accounts take turns.

use std::collections::{BTreeMap, VecDeque};

use tokio_xmpp::jid::BareJid;

use crate::stream::stanza::Request;

/// Most bytes of all requests that wait.
const BYTES_MAX: usize = 16 << 20;
/// Most bytes of one account's requests that wait.
const BYTES_PER_ACCOUNT_MAX: usize = BYTES_MAX / 64;
/// Memory of a request beside its text, in bytes.
const OVERHEAD_BYTES: usize = 512;

/// Users' requests that wait for the store.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    waiting: BTreeMap<BareJid, Waiting>,
    turns: VecDeque<BareJid>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    bytes: usize,
}

fn size(request: &Request) -> usize {
    OVERHEAD_BYTES + request.id.len() + 2 * request.from.as_str().len()
}

impl Requests {
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Lines a request up. Returns the request if there is no room for it.
    pub(crate) fn offer(&mut self, request: Request) -> Option<Request> {
        let (account, size) = (request.from.to_bare(), size(&request));
        let of_account = self.waiting.get(&account).map_or(0, |waiting| waiting.bytes);
        if self.bytes + size > BYTES_MAX || of_account + size > BYTES_PER_ACCOUNT_MAX {
            return Some(request);
        }
        self.bytes += size;
        let waiting = self.waiting.entry(account.clone()).or_default();
        if waiting.requests.is_empty() {
            self.turns.push_back(account);
        }
        waiting.bytes += size;
        waiting.requests.push_back(request);
        None
    }

    /// Takes the next request in turn. The turn of an account whose first request may not begin yet is passed over.
    pub(crate) fn next(&mut self, may_begin: impl Fn(&Request) -> bool) -> Option<Request> {
        let may_begin = |account| self.waiting.get(account)?.requests.front().map(&may_begin);
        let passed_over = self.turns.iter().position(|account| may_begin(account) == Some(true))?;
        self.turns.rotate_left(passed_over);
        let account = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&account)?;
        let request = waiting.requests.pop_front()?;
        let size = size(&request);
        self.bytes -= size;
        waiting.bytes -= size;
        if waiting.requests.is_empty() {
            self.waiting.remove(&account);
        } else {
            self.turns.push_back(account);
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::stanza::Query;

    fn request(from: &str, id: usize) -> Request {
        Request::new(from.parse().unwrap(), id.to_string(), Query::Ping)
    }

    #[test]
    fn a_flood_of_one_account_leaves_the_others_their_turns() {
        let mut requests = Requests::default();
        let taken = (0..10_000).filter(|id| requests.offer(request("mallory@x/1", *id)).is_none()).count();
        assert!((100..1000).contains(&taken), "{taken}");
        assert!(requests.offer(request("juliet@x/1", 0)).is_none());
        let first: Vec<_> = (0..3).map(|_| requests.next(|_| true).unwrap().from.to_string()).collect();
        assert_eq!(first, ["mallory@x/1", "juliet@x/1", "mallory@x/1"]);
        assert_eq!(std::iter::from_fn(|| requests.next(|_| true)).count(), taken - 2);
        assert!(requests.is_empty() && requests.waiting.is_empty() && requests.bytes == 0);
    }

    #[test]
    fn a_request_that_may_not_begin_yet_holds_up_its_account_alone() {
        let mut requests = Requests::default();
        for (from, id) in [("juliet@x/1", 0), ("juliet@x/1", 1), ("romeo@x/1", 2)] {
            assert!(requests.offer(request(from, id)).is_none());
        }
        let mut next = |barred: &str| requests.next(|request| request.id != barred).map(|request| request.id);
        assert_eq!(next("0").as_deref(), Some("2"));
        assert_eq!(next("0"), None);
        assert_eq!([next(""), next(""), next("")], [Some("0".into()), Some("1".into()), None]);
    }

    /// Returns a request of a user that takes so many bytes.
    fn sized(user: usize, bytes: usize) -> Request {
        let from = format!("user{user:02}@x/1");
        let id = "x".repeat(bytes - OVERHEAD_BYTES - 2 * from.len());
        Request::new(from.parse().unwrap(), id, Query::Ping)
    }

    #[test]
    fn requests_of_one_account_have_256_kib_and_give_them_back() {
        let mut requests = Requests::default();
        let offer = |requests: &mut Requests| requests.offer(sized(0, 1024)).is_none();
        assert_eq!((0..300).filter(|_| offer(&mut requests)).count(), 256);
        requests.next(|_| true);
        assert!(offer(&mut requests) && !offer(&mut requests));
    }

    #[test]
    fn requests_of_all_accounts_have_16_mib_and_give_them_back() {
        let mut requests = Requests::default();
        let taken = (0..65 * 4).filter(|number| requests.offer(sized(number / 4, 64 << 10)).is_none());
        assert_eq!(taken.count(), 64 * 4);
        requests.next(|_| true);
        let mut offer = || requests.offer(sized(64, 64 << 10)).is_none();
        assert!(offer() && !offer());
    }
}
