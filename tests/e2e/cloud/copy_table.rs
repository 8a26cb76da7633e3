//! `infra/copy_table.py`, which a move to another region needs.

use e2e::Emulator;
use push::ports::{Accounts, Registrations, Renewal};

use super::template::python_at;
use crate::ports::{WEEK, at, target};

/// Number of rows. They need more than one batch.
const ROWS: usize = 60;

#[tokio::test]
async fn a_table_is_copied_with_each_row_as_it_was() {
    let emulator = Emulator::shared().await;
    let (from, to, mailbox) =
        (emulator.table().await, emulator.table().await, emulator.mailbox_table().await);
    let store = |name: &str| aws::RegistrationsTable::new(&emulator.config(), name);
    let mut rows = Vec::new();
    for row in 0..ROWS {
        let target = target(&format!("user{row}"), "app");
        let stored = store(&from).register(target, at(0), WEEK, Renewal::Always, 9).await.unwrap();
        rows.push(stored.stored().unwrap());
    }
    let endpoint = emulator.endpoint.clone();
    let copy = async |to: String| {
        let (endpoint, from) = (endpoint.clone(), from.clone());
        let copying = move || {
            python_at(
                &endpoint,
                &["infra/copy_table.py", "--from", "us-east-1", &from, "--to", "us-east-1", &to],
            )
        };
        tokio::task::spawn_blocking(copying).await.unwrap()
    };
    // The copy runs twice, as it would after an interruption.
    for _ in 0..2 {
        let said = copy(to.clone()).await.unwrap();
        assert!(said.contains("items were copied"), "{said}");
    }
    for row in &rows {
        let account = row.target.recipient.to_bare();
        let copied = store(&to).account(&account, at(1)).await.unwrap().registrations;
        assert_eq!(copied.as_slice(), std::slice::from_ref(row));
    }
    let wrong = copy(mailbox).await.unwrap_err();
    assert!(wrong.contains("different keys"), "{wrong}");
}
