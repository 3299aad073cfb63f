//! The bytes of every kind of frame, pinned: a node of another release must read them.

use bulkhead::rpc::bridge::Hello;
use bulkhead::rpc::bridge::frame::{self, Call, Head, To, TraceParent};
use bulkhead::supervisor::Exit;
use bulkhead::supervisor::wire::Fault;
use bulkhead::wire::codec;

fn hex(head: &Head, body: &[u8]) -> String {
    let mut bytes = Vec::new();
    let start = frame::begin(&mut bytes, 1, head);
    bytes.extend_from_slice(body);
    frame::finish(&mut bytes, start, 1 << 20).unwrap();
    hex::encode(bytes)
}

fn encoded<T: serde::Serialize>(it: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(it, &mut bytes).unwrap();
    bytes
}

fn call(path: Option<&str>, trace: bool) -> Call<'_> {
    Call {
        corr: 0x12_3456,
        to: To { number: 3, defines: path },
        message: 0x0301,
        schema: 2,
        epoch: 1 << 33,
        trace: trace.then_some(TraceParent { trace: 0x0102_0304, span: 0x0506 }),
    }
}

#[test]
fn every_kind_of_frame_has_these_bytes() {
    let to = To { number: 0, defines: Some("/a/b") };
    let cases: [(&str, Head, &[u8], &str); 13] = [
        ("hello", Head::Hello, b"x", "0400000001010078"),
        ("tell", Head::Tell(call(None, false)), b"body", "13000000010200d6e848038106028080808020626f6479"),
        ("tell, path", Head::Tell(call(Some("/a"), false)), b"", "12000000010201d6e84803022f618106028080808020"),
        (
            "ask",
            Head::Ask { call: call(None, false), left_ms: 5000 },
            b"body",
            "15000000010300d6e8480381060280808080208827626f6479",
        ),
        (
            "ask, path and trace",
            Head::Ask { call: call(Some("/a"), true), left_ms: 5000 },
            b"",
            "2c000000010303d6e84803022f6181060280808080200000000000000000000000000102030400000000000005068827",
        ),
        ("reply", Head::Reply { corr: 300 }, b"body", "09000000010400ac02626f6479"),
        ("fault", Head::Fault { corr: 300 }, b"", "05000000010500ac02"),
        ("heartbeat", Head::Heartbeat { stamp: 300, echo: false }, b"", "05000000010600ac02"),
        ("heartbeat, echo", Head::Heartbeat { stamp: 300, echo: true }, b"", "05000000010604ac02"),
        ("watch", Head::Watch { corr: 1, to, epoch: 5 }, b"", "0b0000000107010100042f612f6205"),
        ("unwatch", Head::Unwatch { corr: 1 }, b"", "0400000001080001"),
        ("down", Head::Down { corr: 1 }, b"", "0400000001090001"),
        ("goodbye", Head::Goodbye, b"", "03000000010a00"),
    ];
    for (name, head, body, bytes) in cases {
        assert_eq!(hex(&head, body), bytes, "{name}");
    }
}

#[test]
fn the_bodies_that_the_bridge_itself_sends_have_these_bytes() {
    // Varints: 251 begins a u16, 252 a u32, 253 a u64.
    let faults = [
        (Fault::NotRunning, "00"),
        (Fault::Restarting, "01"),
        (Fault::Full, "02"),
        (Fault::Timeout, "03"),
        (Fault::Panicked, "04"),
        (Fault::Exited(Exit::Normal), "0500"),
        (Fault::NodeDown { sent: true }, "0601"),
        (Fault::Fenced, "07"),
        (Fault::Refused("no".into()), "08026e6f"),
    ];
    for (fault, bytes) in faults {
        assert_eq!(hex::encode(encoded(&fault)), bytes, "{fault:?}");
    }
    let text = || "x".to_string();
    let exits = [
        (Exit::Normal, "00"),
        (Exit::Shutdown, "01"),
        (Exit::ShutdownWith(text()), "020178"),
        (Exit::Failed(text()), "030178"),
        (Exit::Panicked(text()), "040178"),
        (Exit::Killed, "05"),
        (Exit::Hung(text()), "060178"),
        (Exit::Ignored, "07"),
        (Exit::NotRunning, "08"),
        (Exit::Code(1), "0902"),
        (Exit::Aborted, "0a"),
        (Exit::Segfault, "0b"),
        (Exit::OutOfMemory, "0c"),
        (Exit::Signal(9), "0d12"),
        (Exit::NodeDown, "0e"),
    ];
    for (exit, bytes) in exits {
        assert_eq!(hex::encode(encoded(&exit)), bytes, "{exit:?}");
    }
}

#[test]
fn a_hello_has_these_bytes() {
    let hello = Hello {
        versions: (1, 2),
        boot: 300,
        cluster: "c".into(),
        serial: 5,
        max_frame: 1 << 20,
        schemas: vec![(0x0301, 1, 2)],
    };
    let bytes = "0102fb2c01016305fc0000100001fb01030102";
    assert_eq!(hex::encode(hello.encode()), bytes);
    assert_eq!(Hello::decode(&hex::decode(bytes).unwrap()), Ok(hello));
}
