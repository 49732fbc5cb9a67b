//! The wire form: what is written is read back, and nothing else is believed.

use model::{
    Architecture, Attention, Compatibility, ContentHash, Conversation, Dtype, Fault,
    MachineFaultKind, ModelFaultKind, PackingPlan, TokenizedSample,
    norms::NormLimits,
    protocol::{
        self, Answer, Counters, Device, DeviceMemory, Evaluate, Evaluation, Generate, Hello,
        MAX_FRAME, ModelSource, Phase, Progress, ProtocolError, Reply, Request, Tokenize, Wall,
    },
};
use proptest::prelude::*;

fn source() -> ModelSource {
    ModelSource {
        directory: "/m".into(),
        content_hash: Some(ContentHash::from_digest([7; 32])),
        architecture: Architecture::Llama,
        dtype: Dtype::Bf16,
        attention: Attention::Flash,
        compatibility: Compatibility::V4_40,
        max_parameters: Some(300),
        norm_limits: NormLimits::default(),
    }
}

fn evaluate(samples: Vec<TokenizedSample>) -> Request {
    let plan = PackingPlan::new(&samples, 8192);
    Request::Evaluate(Evaluate {
        model: source(),
        samples,
        plan,
        next: Some(source()),
    })
}

/// A change here is a change of the protocol: raise `protocol::VERSION`.
#[test]
fn the_wire_form_is_a_contract() {
    let hex = |bytes: Vec<u8>| hex::encode(bytes);
    assert_eq!(protocol::VERSION, 4);
    let hello = Hello {
        release: "0.3.0".into(),
        device: Ok(Device {
            id: "cpu".into(),
            name: "CPU".into(),
            memory: None,
        }),
        sandbox: vec![Wall {
            name: "seccomp".into(),
            stands: Ok("on".into()),
        }],
        unused_gpu: None,
    };
    insta::assert_snapshot!(hex(hello.frame().unwrap()), @"230000004556414c0405302e332e30000363707503435055000107736563636f6d7000026f6e00");
    let requests = [
        Request::SelfTest,
        Request::Tokenize(Tokenize {
            directory: "/t".into(),
            compatibility: Compatibility::Current,
            sequence_length: 2048,
            conversations: vec![Conversation::of("q", "a")],
        }),
        evaluate(vec![TokenizedSample {
            ids: vec![1, 300],
            prompt_len: 1,
        }]),
        Request::Generate(Generate {
            model: source(),
            tokenizer: "/t".into(),
            conversation: Conversation::of("q", ""),
            max_tokens: 2048,
            seed: 5,
        }),
        Request::Shutdown,
    ];
    insta::assert_snapshot!(hex(protocol::frame(&requests).unwrap()), @"0c0100000001022f7401801001020475736572017109617373697374616e74016102022f6d0107070707070707070707070707070707070707070707070707070707070707070001000001ac020000000000006940333333333333c33f0000000000408f40010201ac020101010001022f6d0107070707070707070707070707070707070707070707070707070707070707070001000001ac020000000000006940333333333333c33f0000000000408f4003022f6d0107070707070707070707070707070707070707070707070707070707070707070001000001ac020000000000006940333333333333c33f0000000000408f40022f74020475736572017109617373697374616e740080100504");
    let replies = [
        Reply::Progress(Progress {
            phase: Phase::Evaluate,
            done: 1,
            total: 2,
        }),
        Reply::Done(Ok(Answer::Evaluated(Box::new(Evaluation {
            losses: vec![1.5, f64::NAN, f64::INFINITY],
            content_hash: ContentHash::from_digest([7; 32]),
            parameters: 300,
            norms_refused: None,
            warnings: vec!["w".into()],
            counters: Counters {
                tokens: 1,
                computed_tokens: 2,
                scored_rows: 3,
                head_rows: 4,
                bytes_read: 5,
            },
            load_seconds: 0.5,
            compute_seconds: 0.25,
        })))),
        Reply::Done(Err(Fault::model(ModelFaultKind::Template, "t"))),
        Reply::Done(Err(Fault::machine(MachineFaultKind::Bug, "b"))),
        Reply::Memory(DeviceMemory {
            used: 1,
            total: 300,
        }),
    ];
    insta::assert_snapshot!(hex(protocol::frame(&replies).unwrap()), @"6b0000000002010201000203000000000000f83f000000000000f87f000000000000f07f0707070707070707070707070707070707070707070707070707070707070707ac02000101770102030405000000000000e03f000000000000d03f0101000601740101010801620201ac02");
}

#[test]
fn another_version_is_named() {
    let decode = |bytes: &[u8]| Hello::decode(bytes).unwrap_err().to_string();
    let frame = protocol::frame(&(*b"EVAL", 9_u32, "what a later version says")).unwrap();
    insta::assert_snapshot!(decode(&frame[4..]),
        @"the eval-worker speaks protocol version 9, the validator 4");
    insta::assert_snapshot!(decode(b"Usage: eval-worker"), @"this is not an eval-worker");
    insta::assert_snapshot!(decode(b""), @"this is not an eval-worker");
}

#[test]
fn a_lying_length_is_refused_before_anything_is_read() {
    let mut endless = u32::MAX.to_le_bytes().to_vec();
    endless.extend([0; 100]);
    let error = protocol::read::<Reply>(endless.as_slice()).unwrap_err();
    assert!(matches!(error, ProtocolError::TooLong(_)));
    let mut cut = u32::try_from(MAX_FRAME).unwrap().to_le_bytes().to_vec();
    cut.extend([0; 100]);
    assert!(matches!(
        protocol::read::<Reply>(cut.as_slice()),
        Err(ProtocolError::Pipe(_))
    ));
    assert!(protocol::read::<Reply>([].as_slice()).unwrap().is_none());
    assert!(protocol::frame(&"a".repeat(MAX_FRAME)).is_err());
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        lengths in prop::collection::vec((0..50_usize, 0..60_usize), 0..20),
        text in ".*",
        losses in prop::collection::vec(any::<f64>(), 0..20),
    ) {
        let samples = lengths
            .iter()
            .map(|&(n, prompt_len)| TokenizedSample { ids: vec![u32::MAX; n], prompt_len })
            .collect::<Vec<_>>();
        let mut pipe = Vec::new();
        let request = evaluate(samples.clone());
        protocol::write(&mut pipe, &request).unwrap();
        let fault = Reply::Done(Err(Fault::model(ModelFaultKind::Tokenizer, &text)));
        protocol::write(&mut pipe, &fault).unwrap();
        protocol::write(&mut pipe, &losses).unwrap();
        let mut reader = pipe.as_slice();
        prop_assert_eq!(protocol::read::<Request>(&mut reader).unwrap(), Some(request));
        prop_assert_eq!(protocol::read::<Reply>(&mut reader).unwrap(), Some(fault));
        let read = protocol::read::<Vec<f64>>(&mut reader).unwrap().unwrap();
        let bits = |losses: &[f64]| losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read), bits(&losses));
        prop_assert!(reader.is_empty());
    }

    /// Any bytes are either refused or a message that can be written again.
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Hello::decode(&bytes);
        let _ = protocol::read::<Reply>(bytes.as_slice());
        if let Ok(request) = protocol::decode::<Request>(&bytes) {
            prop_assert!(protocol::frame(&request).is_ok());
        }
        if let Ok(reply) = protocol::decode::<Reply>(&bytes) {
            prop_assert!(protocol::frame(&reply).is_ok());
        }
    }
}
