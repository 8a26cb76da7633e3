//! The push message resource (RFC 8030 §2.1): `DELETE /message/{token}` withdraws a push that still waits.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, request::Parts},
};
use push::{
    MessageId, RegistrationId,
    ports::{Consistency, QueueWriter, Store, Unavailable, Withdrawals},
};
use tokio::time::timeout;

use crate::{
    ingress::{ANSWER_TIMEOUT, Ingress},
    measures::WITHDRAWN,
    rejection::Rejection,
    seldom::Seldom,
};

/// The methods that the resource answers.
pub(crate) const METHODS: &str = "DELETE, OPTIONS";

/// A push, named by a token that one of our secrets made (RFC 8030 §8.3: a capability URL). Any other request ends at
/// this extractor, without I/O.
pub(crate) struct Named {
    registration: RegistrationId,
    message: MessageId,
}

impl<R: Store, Q: QueueWriter, M: Withdrawals> FromRequestParts<Arc<Ingress<R, Q, M>>> for Named {
    type Rejection = Rejection;

    async fn from_request_parts(
        parts: &mut Parts,
        ingress: &Arc<Ingress<R, Q, M>>,
    ) -> Result<Self, Rejection> {
        let token = Path::<String>::from_request_parts(parts, ingress)
            .await
            .map_err(|_| Rejection::UnknownMessage)?;
        let (registration, message) =
            ingress.secrets.borrow().verify_message(&token).map_err(|_| Rejection::UnknownMessage)?;
        Ok(Self { registration, message })
    }
}

/// Answers `DELETE`: withdraws a push, and answers 204 once the removal is durable.
///
/// In RFC 8030 §6.2, a user agent acknowledges a push by this method; ours acknowledge over XMPP. As in Mozilla's
/// autopush, an application server withdraws by it a push that was not delivered yet.
pub(crate) async fn withdraw<R: Store, Q: QueueWriter, M: Withdrawals>(
    State(ingress): State<Arc<Ingress<R, Q, M>>>,
    push: Named,
) -> Result<StatusCode, Rejection> {
    let withdrawn = timeout(ANSWER_TIMEOUT, ingress.withdraw(&push)).await;
    withdrawn.map_err(|_| not_withdrawn(&Unavailable::new("no answer in time")))??;
    metrics::counter!(WITHDRAWN).increment(1);
    Ok(StatusCode::NO_CONTENT)
}

impl<R: Store, Q: QueueWriter, M: Withdrawals> Ingress<R, Q, M> {
    async fn withdraw(&self, push: &Named) -> Result<(), Rejection> {
        // Only the row names the account: the URL must not reveal it (RFC 8030 §8.2). A lagging copy may lack the row.
        let row = self.registrations.find(push.registration, Consistency::Strong).await;
        let row = row.map_err(|error| not_withdrawn(&error))?.ok_or(Rejection::NotWaiting)?;
        let account = row.target.recipient.to_bare();
        match self.mailbox.withdraw(&account, push.message, self.clock.now()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Rejection::NotWaiting),
            Err(error) => Err(not_withdrawn(&error)),
        }
    }
}

fn not_withdrawn(error: &Unavailable) -> Rejection {
    static LINE: Seldom = Seldom::new();
    if let Some(times) = LINE.due() {
        tracing::error!(%error, times, "a push was not withdrawn: the store does not do it now");
    }
    Rejection::Unavailable
}
