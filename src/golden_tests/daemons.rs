//! Enums of the pool of full nodes, as the API and the CLI read them.

use crate::rpc::full_node::pool::Status;
use crate::rpc::full_node::pool::view::PoolChange;

fn x() -> String {
    "x".into()
}

named! { status: Status {
    Status::Running => Status::Running, r#""running""#;
    Status::Pause => Status::Pause, r#""pause""#;
} }

named! { pool_change: PoolChange {
    PoolChange::AddNode { .. } => PoolChange::AddNode { node: x() }, r#"{"add_node":{"node":"x"}}"#;
    PoolChange::SetNode { .. } => PoolChange::SetNode { id: x(), key: x(), value: x() },
        r#"{"set_node":{"id":"x","key":"x","value":"x"}}"#;
    PoolChange::SetApi { .. } => PoolChange::SetApi { api: x(), key: x(), value: x() },
        r#"{"set_api":{"api":"x","key":"x","value":"x"}}"#;
    PoolChange::SetPrimary { .. } => PoolChange::SetPrimary { seed: x(), id: x() },
        r#"{"set_primary":{"seed":"x","id":"x"}}"#;
    PoolChange::SetConfig { .. } => PoolChange::SetConfig { key: x(), value: x() },
        r#"{"set_config":{"key":"x","value":"x"}}"#;
} }
