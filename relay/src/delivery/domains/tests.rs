use super::*;

const DOMAIN: &str = "example.org";

fn account(name: &str) -> BareJid {
    format!("{name}@{DOMAIN}").parse().unwrap()
}

fn domains(mailbox: usize) -> Domains {
    Domains::new(DomainBounds { registrations: 2, mailbox })
}

/// Returns the accounts to trim, each with the number of pushes that it keeps.
fn trims(domains: &mut Domains) -> Vec<(String, usize)> {
    let trims = domains.trim().into_iter();
    let mut trims: Vec<_> =
        trims.map(|Trim { account, max }| (account.node().unwrap().to_string(), max)).collect();
    trims.sort();
    trims
}

fn to(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
    expected.iter().map(|(name, max)| ((*name).to_owned(), *max)).collect()
}

#[test]
fn an_overflow_lowers_the_fullest_accounts_to_one_level() {
    for (max, expected) in [
        (17, &[][..]),
        (16, &[("a", 9)]),
        (11, &[("a", 4)]),
        (10, &[("a", 3)]),
        (9, &[("a", 3), ("b", 3)]),
        (8, &[("a", 2), ("b", 3)]),
        (5, &[("a", 1), ("b", 1)]),
        (4, &[("a", 1), ("b", 1), ("c", 1)]),
        (0, &[("a", 0), ("b", 0), ("c", 0), ("d", 0)]),
    ] {
        let mut domains = domains(max);
        for (name, pushes) in [("a", 10), ("b", 4), ("c", 2), ("d", 1)] {
            domains.note_more(&account(name), pushes);
        }
        assert_eq!(trims(&mut domains), to(expected), "at most {max}");
        assert_eq!(trims(&mut domains), [], "it counts as gone");
        let other: BareJid = "a@example.net".parse().unwrap();
        domains.note_more(&other, max);
        assert_eq!(domains.trim(), [], "each domain for itself");
    }
}

#[test]
fn an_account_that_had_less_than_was_counted_costs_nobody_a_push() {
    let mut domains = domains(8);
    domains.note_more(&account("withdrawn"), 9);
    domains.note_more(&account("quiet"), 2);
    assert_eq!(trims(&mut domains), to(&[("withdrawn", 6)]));
    domains.note_trimmed(&account("withdrawn"), 6, 1);
    domains.note_more(&account("quiet"), 5);
    assert_eq!(trims(&mut domains), []);
    // A push that comes while a trim is under way counts.
    domains.note_more(&account("quiet"), 3);
    assert_eq!(trims(&mut domains), to(&[("quiet", 7)]));
    domains.note_more(&account("quiet"), 1);
    domains.note_trimmed(&account("quiet"), 7, 7);
    assert_eq!(trims(&mut domains), to(&[("quiet", 7)]));
}

#[test]
fn a_sweep_counts_anew_and_forgets_whom_it_did_not_find() {
    let mut domains = domains(5);
    for (name, pushes) in [("gone", 9), ("less", 9)] {
        domains.note_more(&account(name), pushes);
    }
    domains.begin_sweep();
    domains.note_found(&account("less"), 2, false);
    domains.note_found(&account("less"), 1, true);
    domains.note_more(&account("new"), 2);
    assert_eq!(trims(&mut domains), to(&[("gone", 1), ("less", 2)]), "until the end, the others count");
    domains.note_more(&account("less"), 1);
    domains.note_less(&account("less"), 1);
    domains.end_sweep();
    assert_eq!(domains.accounts, 2);
    domains.note_more(&account("new"), 2);
    assert_eq!(trims(&mut domains), to(&[("new", 3)]));
    domains.begin_sweep();
    domains.end_sweep();
    assert!(domains.domains.is_empty() && domains.accounts == 0);
}

#[test]
fn registrations_are_counted_up_until_the_next_count() {
    let mut domains = domains(5);
    assert_eq!(domains.full(DOMAIN), None);
    domains.begin_count();
    domains.count_registration(DOMAIN);
    assert_eq!(domains.full(DOMAIN), None, "it is not over yet");
    domains.note_begun(DOMAIN);
    domains.end_count();
    assert_eq!((domains.full(DOMAIN), domains.full("example.net")), (Some(2), None));
    domains.begin_count();
    assert_eq!(domains.full(DOMAIN), Some(2));
    domains.count_registration(DOMAIN);
    domains.end_count();
    assert_eq!(domains.full(DOMAIN), None);
    domains.begin_count();
    domains.end_count();
    assert!(domains.domains.is_empty());
}

#[test]
fn an_account_counts_in_a_sweep_that_does_not_find_it_if_more_came_meanwhile() {
    let mut domains = domains(5);
    for name in ["more", "same", "less"] {
        domains.note_more(&account(name), 1);
    }
    domains.begin_sweep();
    domains.note_more(&account("more"), 1);
    domains.note_less(&account("same"), 0);
    domains.note_less(&account("less"), 1);
    assert_eq!(domains.accounts, 2, "nothing waits for one of them");
    domains.end_sweep();
    assert_eq!(domains.domains[DOMAIN].accounts.keys().collect::<Vec<_>>(), [&account("more")]);
}

#[test]
fn a_change_of_the_access_list_forgets_all_counts() {
    let mut domains = domains(5);
    (0..2).for_each(|_| domains.note_begun(DOMAIN));
    domains.note_more(&account("juliet"), 9);
    assert_eq!(domains.full(DOMAIN), Some(2));
    domains.clear();
    assert_eq!((domains.full(DOMAIN), domains.accounts, trims(&mut domains)), (None, 0, vec![]));
}

#[test]
fn a_domain_for_which_no_more_waits_than_before_is_not_trimmed_again() {
    let mut domains = domains(5);
    domains.note_more(&account("juliet"), 3);
    assert_eq!(domains.trim(), []);
    domains.begin_sweep();
    domains.note_found(&account("juliet"), 3, false);
    domains.end_sweep();
    assert!(domains.grown.is_empty());
}

#[test]
fn beyond_the_bound_of_domains_none_is_counted() {
    let mut domains = domains(5);
    domains.domains = (1..DOMAINS_MAX).map(|domain| (domain.to_string(), Domain::default())).collect();
    for name in ["last.example", "further.example", "1"] {
        (0..2).for_each(|_| domains.note_begun(name));
    }
    let full = ["last.example", "further.example", "1"].map(|name| domains.full(name).is_some());
    assert_eq!(full, [true, false, true]);
}

#[test]
fn beyond_the_bound_of_accounts_none_is_counted() {
    let mut domains = domains(5);
    domains.accounts = ACCOUNTS_MAX - 1;
    for name in ["last", "further", "last"] {
        domains.note_more(&account(name), 3);
    }
    assert_eq!(domains.accounts, ACCOUNTS_MAX);
    assert_eq!(trims(&mut domains), to(&[("last", 5)]));
}
