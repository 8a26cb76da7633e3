//! The end-to-end tests: one binary, so that all share one Prosody and one ejabberd.
#![expect(clippy::unwrap_used, reason = "a panic that names its line is how a test fails")]

/// Makes two tests of each scenario, an `async fn(&XmppServer)`: on the shared Prosody and on the
/// shared ejabberd.
macro_rules! on_each_server {
    ($($scenario:ident),* $(,)?) => {
        mod prosody {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(e2e::XmppServer::shared(e2e::Kind::Prosody).await).await;
            })*
        }
        mod ejabberd {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(e2e::XmppServer::shared(e2e::Kind::Ejabberd).await).await;
            })*
        }
    };
}

mod access;
mod account_bounds;
mod backup;
mod bounds;
mod browser;
mod canary;
mod cloud;
mod cloud_levers;
mod cloud_marker;
mod cloud_metrics;
mod cloud_shed;
mod cloud_stack;
mod cloud_start;
mod cloud_throttled;
mod cloud_troubles;
mod cloud_upgrade;
mod cloud_versions;
mod commands;
mod configuration;
mod contract;
mod contract_accounts;
mod contract_bounds;
mod contract_erasure;
mod contract_living;
mod contract_mailbox;
mod contract_marker;
mod contract_pages;
mod contract_revocation;
mod contract_sqlite;
mod contract_sweep;
mod contract_throttle;
mod contract_together;
mod contract_units;
mod contract_vapid;
mod copy_table;
mod crash;
mod crash_points;
mod crash_unwritten;
mod delivery;
mod delivery_answers;
mod delivery_limits;
mod delivery_log;
mod description;
mod disk;
mod doctor;
mod doctor_cloud;
mod explain;
mod field;
mod follow;
mod half_open;
mod harness;
mod hostile;
mod hostile_stanzas;
mod hostile_xml;
mod lease;
mod lease_on_dynamodb;
mod legacy;
mod mailbox;
mod mailbox_autopush;
mod mailbox_late;
mod mailbox_on_dynamodb;
mod marker;
mod matrix;
mod matrix_on_aws;
mod operator;
mod operator_memory;
mod overload;
mod push_message_resource;
mod push_resource;
mod queue_on_sqs;
mod queue_on_sqs_settled;
mod queue_on_sqs_together;
mod recorded;
mod registration;
mod registrations_on_dynamodb;
mod relay_start;
mod reread;
mod stop;
mod stream;
mod stream_elsewhere;
mod stream_refused;
mod stream_tls;
mod synapse;
mod template;
mod template_alarms;
mod template_cost;
mod tenant_usage;
mod tenant_usage_crash;
mod tenants;
mod vapid;
mod web_push;
