//! `cluster forget-epochs`: a stopped node goes on with what an etcd has that was put back to an earlier state.

use crate::cli::{CliError, Context};
use crate::config::RepoLock;
use crate::store::Store;
use crate::util::time::unix_secs;
use serde_json::json;

pub fn epochs(cx: &Context) -> Result<(), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
    let _lock = RepoLock::take(&cx.config.repo)?;
    let file = cx.config.store_file();
    let seconds = unix_secs();
    let copy = file.with_extension(format!("redb.before-forget-{seconds}"));
    let dropped = Store::forget_epochs(&file, &copy).map_err(|e| failed(&e))?;
    let answer = json!({ "copy": copy, "dropped": dropped });
    cx.out.answer(&answer, |_| {
        let copy = copy.display();
        format!("what etcd has counts from now on; {dropped} waiting writes dropped; the store as it was: {copy}")
    });
    Ok(())
}
