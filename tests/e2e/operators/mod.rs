//! The commands and settings of operators, and the messages to them.

mod access;
mod backup;
mod canary;
mod configuration;
mod doctor;
mod doctor_cloud;
mod explain;
mod lists;
mod memory;
mod relay_start;
mod reread;
mod tenant_usage;
mod tenant_usage_crash;
mod tenants;

use std::collections::BTreeMap;
use std::process::{Command, Output};

use e2e::profile_folder;

/// Runs a command of an operator in this environment alone.
pub(crate) fn upwire(arguments: &[&str], variables: &BTreeMap<&str, String>) -> Output {
    let mut command = Command::new(profile_folder().join("upwire"));
    command.env_clear().env("AWS_EC2_METADATA_DISABLED", "true").envs(variables);
    command.args(arguments).output().unwrap()
}

pub(crate) fn said(arguments: &[&str], variables: &BTreeMap<&str, String>) -> String {
    let output = upwire(arguments, variables);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
