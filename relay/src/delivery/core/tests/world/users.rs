//! Users, and their requests to the component.

use super::*;

/// A registration that a full JID asks for, and its id.
pub(in super::super) fn registration(jid: &str, application: u8) -> (RegistrationId, Request) {
    let application = Application::from_bytes([application; 32]);
    let target = Target { application, ..testing::target(jid) };
    let id = target.registration_id();
    (id, Request::new(jid.parse().unwrap(), "r".into(), Query::Register(Ok(Box::new(target)))))
}

impl World {
    pub(in super::super) fn register(&mut self, jid: &str, application: u8) -> RegistrationId {
        let (id, request) = registration(jid, application);
        self.take(Input::Stanza(Incoming::Request(request)));
        id
    }

    /// A full JID asks for a registration, which the store gets after what `meanwhile` does.
    pub(in super::super) fn register_slowly(
        &mut self,
        jid: &str,
        application: u8,
        meanwhile: impl FnOnce(&mut Self),
    ) -> RegistrationId {
        self.late_requests = Some(Vec::new());
        let id = self.register(jid, application);
        meanwhile(self);
        let requests = self.late_requests.take().unwrap_or_default();
        self.store_all(&requests);
        id
    }
}
