//! The contract of the mailbox, over every backend.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use push::message::{BODY_BYTES_MAX, KEY_HEADERS_BYTES_MAX, Wishes};
use push::ports::{Kept, Mailbox, Waiting, Withdrawals};
use push::{
    Body, Epoch, Instance, MessageId, PushMessage, Registration, RegistrationId, Target, Topic, Urgency,
    testing,
};
use tokio_xmpp::jid::BareJid;

use super::{Backend, WEEK, at, at_most, on_each_backend};

/// Number of pushes that no test here exceeds for one registration.
pub(crate) const MANY: usize = 100;

/// Returns a registration of an account, another one for each number.
pub(crate) fn registration(recipient: &str, number: u8) -> Registration {
    let instance = Instance::from_bytes([number; 32]);
    let target = Target { instance, ..testing::target(recipient) };
    Registration::renew(None, target, at(0), WEEK)
}

pub(crate) fn juliet(number: u8) -> Registration {
    registration("juliet@example.com/phone", number)
}

pub(crate) fn romeo(number: u8) -> Registration {
    registration("romeo@example.com/phone", number)
}

pub(crate) fn next_life(registration: &Registration) -> Registration {
    let epoch = Epoch::from_seconds(registration.epoch.as_seconds() + 1);
    Registration { epoch, ..registration.clone() }
}

/// Returns a push for a registration, accepted in this second.
pub(crate) fn push(
    registration: &Registration,
    urgency: Urgency,
    second: i64,
    topic: Option<&str>,
) -> Waiting {
    let wishes = Wishes { urgency, topic: topic.and_then(Topic::parse), ..testing::wishes(3600) };
    let mut chance = [0; MessageId::CHANCE_BYTES];
    chance.copy_from_slice(&registration.target.registration_id().as_bytes()[..MessageId::CHANCE_BYTES]);
    let body = Body::from_bytes(format!("second {second}").as_bytes());
    Waiting { message: PushMessage::new(chance, registration, wishes, body, at(second)), asked_at: None }
}

pub(crate) fn plain(registration: &Registration, second: i64) -> Waiting {
    push(registration, Urgency::Normal, second, None)
}

pub(crate) fn account(registration: &Registration) -> BareJid {
    registration.target.recipient.to_bare()
}

pub(crate) fn id(registration: &Registration) -> RegistrationId {
    registration.target.registration_id()
}

pub(crate) fn ids<'a>(waiting: impl IntoIterator<Item = &'a Waiting>) -> Vec<MessageId> {
    waiting.into_iter().map(|waiting| waiting.message.id).collect()
}

async fn keep<B: Backend>(backend: &B, waiting: &Waiting) -> Kept {
    backend.mailbox().keep(waiting.clone(), at_most(MANY)).await.unwrap()
}

pub(crate) async fn keep_all<B: Backend>(backend: &B, all: &[Waiting]) {
    for waiting in all {
        assert_eq!(keep(backend, waiting).await, Kept::default());
    }
}

async fn all<B: Backend>(backend: &B, registration: &Registration) -> Vec<MessageId> {
    ids(&backend.mailbox().waiting(&account(registration), None, None, MANY).await.unwrap())
}

async fn a_push_waits_as_it_was_kept_for_whatever_account<B: Backend>() {
    let mut backend = B::fresh().await;
    for recipient in
        ["juliet@exämple.com/phöne 'n\" <co>", "o\\27hara@example.com/#%2F", "example.com/a", "[::1]/a"]
    {
        let registration = registration(recipient, 1);
        let mut kept = push(&registration, Urgency::Low, 1, Some("-_topic_-"));
        kept.message.body = Body::from_bytes(&[0xff; BODY_BYTES_MAX + KEY_HEADERS_BYTES_MAX + 64]);
        kept.asked_at = Some(at(2) + TimeDelta::milliseconds(345));
        let account = account(&registration);
        assert_eq!(backend.mailbox().find(&account, kept.message.id).await.unwrap(), None);
        assert_eq!(keep(&backend, &kept).await, Kept::default());
        backend = backend.after_a_restart().await;
        assert_eq!(backend.mailbox().waiting(&account, None, None, MANY).await.unwrap(), [kept.clone()]);
        assert_eq!(backend.mailbox().find(&account, kept.message.id).await.unwrap(), Some(kept));
    }
    assert_eq!(backend.mailbox().recipients(None, MANY).await.unwrap().0.len(), 4);
}

async fn the_most_urgent_is_handed_out_first_and_then_the_oldest<B: Backend>() {
    let backend = B::fresh().await;
    let (one, other) = (juliet(1), juliet(2));
    let in_order = [
        push(&other, Urgency::High, 5, None),
        push(&one, Urgency::High, 6, None),
        push(&one, Urgency::Normal, 3, None),
        push(&other, Urgency::Normal, 4, None),
        push(&one, Urgency::Normal, 7, None),
        push(&one, Urgency::Low, 2, None),
        push(&other, Urgency::VeryLow, 1, None),
    ];
    for index in [3, 6, 0, 2, 5, 1, 4] {
        keep(&backend, &in_order[index]).await;
    }
    let account = account(&one);
    let page = async |after, max| backend.mailbox().waiting(&account, None, after, max).await.unwrap();
    assert_eq!(page(None, MANY).await, in_order);
    assert_eq!(page(None, 7).await, in_order);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = page(after, 3).await;
        after = page.last().map(|last| last.message.id);
        let more = page.len() == 3;
        paged.extend(page);
        if !more {
            break;
        }
    }
    assert_eq!(paged, in_order);
    assert_eq!(page(Some(in_order[6].message.id), 3).await, []);
    assert_eq!(all(&backend, &romeo(1)).await, []);
}

async fn what_is_kept_again_is_overwritten<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let mut waiting = push(&registration, Urgency::Normal, 1, Some("topic"));
    let other = plain(&registration, 2);
    keep_all(&backend, &[waiting.clone(), other.clone()]).await;
    for asked_at in [Some(at(5)), Some(at(9)), None] {
        waiting.asked_at = asked_at;
        let kept = backend.mailbox().keep(waiting.clone(), at_most(2)).await.unwrap();
        assert_eq!(kept, Kept::default(), "neither its own topic nor the bound is against it");
        let found = backend.mailbox().waiting(&account(&registration), None, None, MANY).await.unwrap();
        assert_eq!(found, [waiting.clone(), other.clone()]);
    }
}

async fn a_topic_replaces_within_its_registration_alone<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let first = push(&registration, Urgency::High, 1, Some("topic"));
    let others = [
        push(&registration, Urgency::Normal, 2, Some("Topic")),
        plain(&registration, 3),
        push(&juliet(2), Urgency::Normal, 4, Some("topic")),
        push(&romeo(1), Urgency::Normal, 5, Some("topic")),
    ];
    keep_all(&backend, &others).await;
    assert_eq!(keep(&backend, &first).await, Kept::default());
    let second = push(&registration, Urgency::Low, 6, Some("topic"));
    assert_eq!(keep(&backend, &second).await, Kept { replaced: ids([&first]), dropped: Vec::new() });
    let third = push(&next_life(&registration), Urgency::Low, 7, Some("topic"));
    let kept = keep(&backend, &third).await;
    assert_eq!(
        kept,
        Kept { replaced: ids([&second]), dropped: Vec::new() },
        "also what waits for a past life"
    );
    assert_eq!(all(&backend, &registration).await, ids(others[..3].iter().chain([&third])));
    assert_eq!(all(&backend, &romeo(1)).await, ids(&others[3..]));
}

async fn a_push_that_comes_late_replaces_none_that_is_newer<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let newer = push(&registration, Urgency::Normal, 2, Some("topic"));
    assert_eq!(keep(&backend, &newer).await, Kept::default());
    let late = push(&registration, Urgency::High, 1, Some("topic"));
    assert_eq!(keep(&backend, &late).await, Kept { replaced: ids([&late]), dropped: Vec::new() });
    assert_eq!(all(&backend, &registration).await, ids([&newer]));
    assert_eq!(backend.mailbox().find(&account(&registration), late.message.id).await.unwrap(), None);
}

async fn of_many_with_one_topic_the_newest_stays<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let mut replaced = Vec::new();
    for second in [3, 1, 4, 15, 9, 2, 6, 5, 35, 8] {
        replaced
            .extend(keep(&backend, &push(&registration, Urgency::Normal, second, Some("t"))).await.replaced);
    }
    let newest = push(&registration, Urgency::Normal, 35, Some("t"));
    assert_eq!(all(&backend, &registration).await, ids([&newest]));
    assert_eq!(replaced.len(), 9);
}

async fn the_bound_drops_the_oldest_of_the_registration_whatever_its_urgency<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let others = [plain(&juliet(2), 1), plain(&romeo(1), 1)];
    keep_all(&backend, &others).await;
    let bounded = async |waiting: &Waiting| {
        let kept = backend.mailbox().keep(waiting.clone(), at_most(3)).await.unwrap();
        assert_eq!(kept.replaced, []);
        kept.dropped
    };
    let [urgent, second, third] = [
        push(&registration, Urgency::High, 2, None),
        push(&registration, Urgency::VeryLow, 3, None),
        push(&registration, Urgency::Normal, 4, None),
    ];
    for waiting in [&urgent, &second, &third] {
        assert_eq!(bounded(waiting).await, []);
    }
    let of_next_life = push(&next_life(&registration), Urgency::VeryLow, 5, None);
    assert_eq!(bounded(&of_next_life).await, ids([&urgent]));
    let older = push(&registration, Urgency::High, 1, None);
    assert_eq!(bounded(&older).await, ids([&older]), "it may be the push itself");
    let expected = ids([&others[0], &third, &second, &of_next_life]);
    assert_eq!(
        all(&backend, &registration).await.into_iter().collect::<BTreeSet<_>>(),
        expected.into_iter().collect()
    );

    let newest = plain(&registration, 6);
    let kept = backend.mailbox().keep(newest.clone(), at_most(1)).await.unwrap();
    assert_eq!(
        kept.dropped,
        ids([&second, &third, &of_next_life]),
        "of a bound that was lowered, the oldest first"
    );
    assert_eq!(all(&backend, &registration).await, ids([&others[0], &newest]));
    assert_eq!(all(&backend, &romeo(1)).await, ids([&others[1]]));
}

async fn what_has_expired_makes_room_first<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let mut lasting = plain(&registration, 1);
    lasting.message.expires_at = at(100_000);
    let [expired, also_expired] = [2, 3].map(|second| plain(&registration, second));
    keep_all(&backend, &[lasting.clone(), expired, also_expired]).await;
    let [later, last] = [4000, 4001].map(|second| plain(&registration, second));
    for waiting in [&later, &last] {
        let kept = backend.mailbox().keep(waiting.clone(), at_most(3)).await.unwrap();
        assert_eq!(kept, Kept::default(), "two of five have expired");
    }
    let found = all(&backend, &registration).await;
    assert!(ids([&lasting, &later, &last]).iter().all(|id| found.contains(id)));
}

async fn when_it_went_out_is_noted_of_what_waits_and_brings_nothing_back<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let [waiting, withdrawn] = [1, 2].map(|second| plain(&registration, second));
    keep_all(&backend, &[waiting.clone(), withdrawn.clone()]).await;
    backend.mailbox().remove(vec![(account(&registration), withdrawn.message.id)]).await.unwrap();
    for push in [&waiting, &withdrawn] {
        backend.mailbox().note_asked(&account(&registration), push.message.id, at(60)).await.unwrap();
    }
    let found = backend.mailbox().waiting(&account(&registration), None, None, MANY).await.unwrap();
    assert_eq!(found, [Waiting { asked_at: Some(at(60)), ..waiting }]);
}

async fn what_a_topic_replaced_does_not_count_for_the_bound<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let [plain, first, second] = [
        plain(&registration, 1),
        push(&registration, Urgency::Normal, 2, Some("topic")),
        push(&registration, Urgency::Normal, 3, Some("topic")),
    ];
    keep_all(&backend, &[plain.clone(), first.clone()]).await;
    let kept = backend.mailbox().keep(second.clone(), at_most(2)).await.unwrap();
    assert_eq!(kept, Kept { replaced: ids([&first]), dropped: Vec::new() });
    let late = push(&registration, Urgency::Normal, 2, Some("topic"));
    let kept = backend.mailbox().keep(late.clone(), at_most(2)).await.unwrap();
    assert_eq!(kept, Kept { replaced: ids([&late]), dropped: Vec::new() });
    assert_eq!(all(&backend, &registration).await, ids([&plain, &second]));
}

async fn a_removal_takes_exactly_what_it_names<B: Backend>() {
    let backend = B::fresh().await;
    let (one, other) = (juliet(1), romeo(1));
    let of_one: Vec<_> = (0..60).map(|second| plain(&one, second)).collect();
    let of_other: Vec<_> = (0..3).map(|second| plain(&other, second)).collect();
    keep_all(&backend, &of_one).await;
    keep_all(&backend, &of_other).await;
    let named = |registration: &Registration, waiting: &Waiting| (account(registration), waiting.message.id);
    let mut gone: Vec<_> = of_one[..55].iter().map(|waiting| named(&one, waiting)).collect();
    // One push is named twice, one belongs to another account, and one is named in an account that does not have it.
    gone.push(named(&one, &of_one[0]));
    gone.push(named(&other, &of_other[1]));
    gone.push(named(&other, &of_one[57]));
    for _ in 0..2 {
        backend.mailbox().remove(gone.clone()).await.unwrap();
        assert_eq!(all(&backend, &one).await, ids(&of_one[55..]));
        assert_eq!(all(&backend, &other).await, ids([&of_other[0], &of_other[2]]));
    }
    backend.mailbox().remove(Vec::new()).await.unwrap();
    let backend = backend.after_a_restart().await;
    assert_eq!(all(&backend, &one).await, ids(&of_one[55..]));
}

async fn a_withdrawal_says_whether_the_push_was_there<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let [first, second, expired] = [1, 2, 3].map(|second| plain(&registration, second));
    keep_all(&backend, &[first.clone(), second.clone(), expired.clone()]).await;
    let withdraw_at = async |registration: &Registration, waiting: &Waiting, now| {
        backend.mailbox().withdraw(&account(registration), waiting.message.id, now).await.unwrap()
    };
    let withdraw = async |registration: &Registration, waiting: &Waiting| {
        withdraw_at(registration, waiting, waiting.message.accepted_at).await
    };
    assert!(!withdraw_at(&registration, &expired, expired.message.expires_at).await);
    // It may have stayed, for the relay.
    backend.mailbox().remove(vec![(account(&registration), expired.message.id)]).await.unwrap();
    assert!(!withdraw(&romeo(1), &first).await);
    assert!(withdraw(&registration, &first).await);
    assert!(!withdraw(&registration, &first).await);
    assert_eq!(all(&backend, &registration).await, ids([&second]));
}

async fn clearing_ends_what_waits_for_lives_up_to_that_one<B: Backend>() {
    let backend = B::fresh().await;
    let first = juliet(1);
    let second = next_life(&first);
    let third = next_life(&second);
    let past: Vec<_> = (0..30).map(|second| plain(&first, second)).chain([plain(&second, 30)]).collect();
    let others = [plain(&third, 31), plain(&juliet(2), 31)];
    keep_all(&backend, &past).await;
    keep_all(&backend, &others).await;
    keep_all(&backend, &[plain(&romeo(1), 1)]).await;
    let clear = async |registration: &Registration| {
        let account = account(registration);
        backend.mailbox().clear(&account, id(registration), registration.epoch).await.unwrap()
    };
    assert_eq!(clear(&juliet(3)).await, 0);
    assert_eq!(clear(&second).await, 31);
    assert_eq!(clear(&second).await, 0);
    assert_eq!(all(&backend, &first).await.len(), 2);
    assert_eq!(all(&backend, &romeo(1)).await.len(), 1);
    assert_eq!(clear(&third).await, 1);
    assert_eq!(all(&backend, &first).await, ids(&others[1..]));
}

async fn a_drain_goes_on_behind_what_is_gone<B: Backend>() {
    let backend = B::fresh().await;
    let registration = juliet(1);
    let waiting: Vec<_> = (0..5).map(|second| plain(&registration, second)).collect();
    keep_all(&backend, &waiting).await;
    let account = account(&registration);
    let first = backend.mailbox().waiting(&account, None, None, 2).await.unwrap();
    backend.mailbox().remove(first.iter().map(|w| (account.clone(), w.message.id)).collect()).await.unwrap();
    let after = first.last().map(|last| last.message.id);
    assert_eq!(backend.mailbox().waiting(&account, None, after, MANY).await.unwrap(), waiting[2..]);
}

on_each_backend!(
    a_push_waits_as_it_was_kept_for_whatever_account,
    the_most_urgent_is_handed_out_first_and_then_the_oldest,
    what_is_kept_again_is_overwritten,
    a_topic_replaces_within_its_registration_alone,
    a_push_that_comes_late_replaces_none_that_is_newer,
    of_many_with_one_topic_the_newest_stays,
    the_bound_drops_the_oldest_of_the_registration_whatever_its_urgency,
    what_a_topic_replaced_does_not_count_for_the_bound,
    a_removal_takes_exactly_what_it_names,
    what_has_expired_makes_room_first,
    when_it_went_out_is_noted_of_what_waits_and_brings_nothing_back,
    a_withdrawal_says_whether_the_push_was_there,
    clearing_ends_what_waits_for_lives_up_to_that_one,
    a_drain_goes_on_behind_what_is_gone,
);
