//! The capacity units that calls to DynamoDB consume, counted for the tenants of the accounts.
//!
//! On request, DynamoDB returns the consumed units with each answer. Failed calls, and calls that are for no account (a
//! sweep, the lease), are not counted.

use std::{cell::Cell, collections::BTreeMap};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{AfterDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextMut},
    },
    error::BoxError,
    operation::{
        batch_get_item::{BatchGetItemInput, BatchGetItemOutput},
        batch_write_item::{BatchWriteItemInput, BatchWriteItemOutput},
        delete_item::{DeleteItemInput, DeleteItemOutput},
        get_item::{GetItemInput, GetItemOutput},
        put_item::{PutItemInput, PutItemOutput},
        query::{QueryInput, QueryOutput},
        update_item::{UpdateItemInput, UpdateItemOutput},
    },
    types::{ConsumedCapacity, ReturnConsumedCapacity},
};
use chrono::{DateTime, Utc};
use futures::FutureExt;
use jid::BareJid;
use push::{
    Clock,
    usage::{Counts, Meter, Tally, Units},
};

tokio::task_local! {
    /// The units that this task's calls have consumed, while they are measured.
    static CONSUMED: Cell<Consumed>;
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Consumed {
    reads: f64,
    writes: f64,
}

/// Counts the units that calls consume. The default counts nothing, and does not request the units.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnitsMeter(Option<(Meter, Clock)>);

impl UnitsMeter {
    /// Makes a counter for this meter, and the client whose calls it counts.
    pub(crate) fn new(client: &Client, meter: Meter, clock: Clock) -> (Client, Self) {
        let config: Config = client.config().to_builder().interceptor(Asking).build();
        (Client::from_conf(config), Self(Some((meter, clock))))
    }

    /// Makes calls, and counts their units for an account.
    pub(crate) fn of<'a, T: Send + 'a>(
        &'a self,
        account: &BareJid,
        calls: impl Future<Output = T> + Send + 'a,
    ) -> impl Future<Output = T> + Send + 'a {
        let account = account.clone();
        self.of_those(calls, |_| vec![account])
    }

    /// Makes calls, and counts their units for the accounts in their result. `accounts` names an account once for each
    /// of its items, and each item has the same share.
    pub(crate) fn of_those<'a, T: Send + 'a>(
        &'a self,
        calls: impl Future<Output = T> + Send + 'a,
        accounts: impl FnOnce(&T) -> Vec<BareJid> + Send + 'a,
    ) -> impl Future<Output = T> + Send + 'a {
        // The future is boxed at once. Each enclosing future would move it, and the SDK's futures are large.
        let calls = calls.boxed();
        async move {
            let Some((meter, clock)) = &self.0 else { return calls.await };
            let measured = async { (calls.await, CONSUMED.with(Cell::get)) };
            let (result, consumed) = CONSUMED.scope(Cell::default(), measured).await;
            count(meter, clock.now(), &accounts(&result), consumed);
            result
        }
    }
}

fn count(meter: &Meter, now: DateTime<Utc>, accounts: &[BareJid], consumed: Consumed) {
    let mut items = BTreeMap::<&str, f64>::new();
    for account in accounts {
        *items.entry(account.domain().as_str()).or_default() += 1.0;
    }
    let tally = Tally::default();
    for (domain, items) in items {
        let share = |units: f64| Units::from(units * items / accounts.len() as f64);
        let (read_units, write_units) = (share(consumed.reads), share(consumed.writes));
        meter.count(domain, Counts { read_units, write_units, ..Counts::default() }, now, &tally);
    }
    meter.take_over(&tally);
}

/// Requests the consumed units of each measured call, and adds them up.
#[derive(Debug)]
struct Asking;

impl Intercept for Asking {
    fn name(&self) -> &'static str {
        "units"
    }

    fn modify_before_serialization(
        &self,
        context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if CONSUMED.try_with(|_| ()).is_err() {
            return Ok(());
        }
        let (input, total) = (context.input_mut(), Some(ReturnConsumedCapacity::Total));
        if let Some(get) = input.downcast_mut::<GetItemInput>() {
            get.return_consumed_capacity = total;
        } else if let Some(put) = input.downcast_mut::<PutItemInput>() {
            put.return_consumed_capacity = total;
        } else if let Some(update) = input.downcast_mut::<UpdateItemInput>() {
            update.return_consumed_capacity = total;
        } else if let Some(delete) = input.downcast_mut::<DeleteItemInput>() {
            delete.return_consumed_capacity = total;
        } else if let Some(query) = input.downcast_mut::<QueryInput>() {
            query.return_consumed_capacity = total;
        } else if let Some(get) = input.downcast_mut::<BatchGetItemInput>() {
            get.return_consumed_capacity = total;
        } else if let Some(write) = input.downcast_mut::<BatchWriteItemInput>() {
            write.return_consumed_capacity = total;
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Ok(output) = context.output_or_error() else { return Ok(()) };
        let one = |capacity: Option<&ConsumedCapacity>| capacity.and_then(ConsumedCapacity::capacity_units);
        let all = |tables: &[ConsumedCapacity]| {
            tables.iter().filter_map(ConsumedCapacity::capacity_units).sum::<f64>()
        };
        let (mut reads, mut writes) = (0.0, 0.0);
        if let Some(get) = output.downcast_ref::<GetItemOutput>() {
            reads = one(get.consumed_capacity()).unwrap_or_default();
        } else if let Some(query) = output.downcast_ref::<QueryOutput>() {
            reads = one(query.consumed_capacity()).unwrap_or_default();
        } else if let Some(get) = output.downcast_ref::<BatchGetItemOutput>() {
            reads = all(get.consumed_capacity());
        } else if let Some(put) = output.downcast_ref::<PutItemOutput>() {
            writes = one(put.consumed_capacity()).unwrap_or_default();
        } else if let Some(update) = output.downcast_ref::<UpdateItemOutput>() {
            writes = one(update.consumed_capacity()).unwrap_or_default();
        } else if let Some(delete) = output.downcast_ref::<DeleteItemOutput>() {
            writes = one(delete.consumed_capacity()).unwrap_or_default();
        } else if let Some(write) = output.downcast_ref::<BatchWriteItemOutput>() {
            writes = all(write.consumed_capacity());
        }
        // An error means that the call is not measured.
        let _ = CONSUMED.try_with(|consumed| {
            let before = consumed.get();
            consumed.set(Consumed { reads: before.reads + reads, writes: before.writes + writes });
        });
        Ok(())
    }
}
