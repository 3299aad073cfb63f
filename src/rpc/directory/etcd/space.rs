//! How full etcd's database is: at its quota it takes no writes, and grants no leases, until an operator makes room.

use super::state::EtcdState;
use crate::rpc::directory::Space;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

const EVERY: Duration = Duration::from_secs(60);

/// Never ends by itself.
pub(super) async fn run(shared: Arc<EtcdState>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tick.tick().await;
        let status = shared.connection.call(|mut client| async move { client.status().await }).await;
        let status = match status {
            Ok(status) => status,
            // The feed tells of an etcd that is away.
            Err(error) => {
                tracing::debug!("etcd does not say how full it is: {error}");
                continue;
            }
        };
        let space = space(status.db_size(), status.errors());
        let trouble = space.trouble();
        if trouble != told
            && let Some(trouble) = &trouble
        {
            tracing::warn!("{trouble}");
        }
        told = trouble;
        shared.change(|view| view.space = Some(space));
    }
}

fn space(bytes: i64, alarms: &[String]) -> Space {
    Space { bytes: u64::try_from(bytes).unwrap_or(0), full: alarms.iter().any(|alarm| alarm.contains("NOSPACE")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_of_the_default_quota_and_the_alarm_are_told_with_what_to_do() {
        let alarm = ["memberID:1 alarm:NOSPACE ".to_owned()];
        for (bytes, alarms, part) in [
            (1 << 20, &[][..], None),
            (1 << 30, &[][..], None),
            ((1 << 30) + 1, &[][..], Some("--auto-compaction-retention")),
            (1 << 20, &alarm[..], Some("etcdctl alarm disarm")),
        ] {
            let told = space(bytes, alarms).trouble();
            assert_eq!(told.is_some(), part.is_some(), "{bytes} {alarms:?}");
            assert!(told.unwrap_or_default().contains(part.unwrap_or_default()), "{bytes} {alarms:?}");
        }
    }
}
