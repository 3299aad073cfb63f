//! Every message that may cross to another process, and its number. A number is never used for another message again.

/// One message of the wire: what it is numbered, and what it is called in refusals.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $id:literal;)*) => {
        $($(#[$doc])* pub const $name: u32 = $id;)*
        /// All of them, for the check that no number stands twice.
        pub const ALL: &[(u32, &str)] = &[$(($id, stringify!($name))),*];
    };
}

ids! {
    // message sender
    ENQUEUE = 0x0101;
    WITHDRAW = 0x0102;
    MESSAGE_STATUS = 0x0103;
    PENDING = 0x0104;
    MESSAGE_SUMMARY = 0x0105;
    LIST_MESSAGES = 0x0106;
    REPLACE_MESSAGE = 0x0107;
    CANCEL_MESSAGE = 0x0108;
    // sector allocator
    ALLOCATE = 0x0201;
    RESERVE = 0x0202;
    RESERVE_COUNT = 0x0203;
    FREE = 0x0204;
    ALLOCATED = 0x0205;
    // seal scheduler
    PLEDGE = 0x0301;
    LIST = 0x0302;
    SECTOR_STATUS = 0x0303;
    REMOVE = 0x0304;
    SEALING_SUMMARY = 0x0305;
    SEALING_TASKS = 0x0306;
    // proving
    WINDOW_POST_INFO = 0x0401;
    WINDOW_POST_SUMMARY = 0x0402;
    WINNING_INFO = 0x0501;
    F3_STATUS = 0x0502;
    // markets
    MARKET_INFO = 0x0601;
    // daemon link
    FEED_INFO = 0x0701;
    POOL_INFO = 0x0702;
    // seal worker (agents)
    SEAL_RUN = 0x0801;
    SEAL_JOB_STATUS = 0x0802;
    SEAL_ACKNOWLEDGE = 0x0803;
    AGENT_REPORT = 0x0804;
    AGENT_TASKS = 0x0805;
    SEAL_TAKE_BACK = 0x0806;
    // storage
    STORAGE_HAS = 0x0901;
    STORAGE_VANILLA = 0x0902;
    // a node of itself
    TREE_SNAPSHOT = 0x0a01;
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use std::collections::BTreeMap;

    #[test]
    fn no_number_stands_twice() {
        let mut seen = BTreeMap::new();
        for (id, name) in ALL {
            assert_eq!(seen.insert(id, name), None, "{id:#x} is {name}'s and another's");
        }
    }
}
