//! A hostile node: garbage of all sizes ends in an error, never in a panic or in all our memory.

use std::time::Duration;

use chain::{
    ChainError, Client, Endpoints,
    decode::{DecodeError, Value, decode},
    metagraph::from_columns,
    runtime::Runtime,
};
use codec::Encode as _;
use jsonrpsee::{
    RpcModule,
    core::client::ClientT as _,
    rpc_params,
    server::{Server, ServerConfig, ServerHandle},
    ws_client::WsClientBuilder,
};
use proptest::{prelude::*, test_runner::TestRunner};
use scale_info::{MetaType, PortableRegistry, Registry, TypeInfo, build::Fields};
use subnet::{FaultKind, Genesis};
use tokio::time::timeout;

use crate::{NETUID, connect, deadlines, start};

fn registry<T: TypeInfo + 'static>() -> (PortableRegistry, u32) {
    let mut registry = Registry::new();
    let id = registry.register_type(&MetaType::new::<T>()).id;
    (registry.into(), id)
}

#[derive(codec::Encode, TypeInfo)]
struct Newtype(u16);

#[derive(codec::Encode, TypeInfo)]
enum Odd {
    Nothing,
    Named { a: Option<u64>, b: [u8; 3] },
    Pair(Newtype, String),
}

#[derive(codec::Encode, TypeInfo)]
struct Sample {
    id: Newtype,
    #[codec(compact)]
    block: u64,
    rows: Vec<(u16, u16)>,
    odd: Vec<Odd>,
    flag: bool,
    nested: Option<Vec<Option<i32>>>,
}

/// A type without bytes that contains itself.
struct Abyss;

impl TypeInfo for Abyss {
    type Identity = Self;

    fn type_info() -> scale_info::Type {
        let fields = Fields::named().field(|field| field.ty::<Self>().name("deeper"));
        scale_info::Type::builder()
            .path(scale_info::Path::new("Abyss", "hostile"))
            .composite(fields)
    }
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    let (types, id) = registry::<Sample>();
    let sample = Sample {
        id: Newtype(6),
        block: 1 << 40,
        rows: vec![(1, 2)],
        odd: vec![
            Odd::Nothing,
            Odd::Named {
                a: Some(7),
                b: *b"abc",
            },
            Odd::Pair(Newtype(9), "é".to_owned()),
        ],
        flag: true,
        nested: Some(vec![None, Some(-3)]),
    };
    let bytes = sample.encode();
    let value = decode(&bytes, id, &types).unwrap();
    assert_eq!(value.field("id").unwrap().uint::<u16>(), Ok(6));
    assert_eq!(value.field("block").unwrap().uint::<u64>(), Ok(1 << 40));
    let row = value.field("rows").unwrap().list().unwrap()[0]
        .tuple::<2>()
        .unwrap();
    assert_eq!(row[1].uint::<u8>(), Ok(2));
    let odd = value.field("odd").unwrap().list().unwrap();
    assert_eq!(odd[0].variant().unwrap().0, "Nothing");
    assert_eq!(
        odd[1].variant().unwrap().1.field("b").unwrap().bytes(),
        Ok(&b"abc"[..])
    );
    assert!(value.field("flag").unwrap().bool().unwrap());
    assert_eq!(
        value.field("nested").unwrap().list().unwrap()[1],
        Value::Int(-3)
    );
    assert!(value.field("id").unwrap().bytes().is_err());
    assert_eq!(
        decode(&bytes[..bytes.len() - 1], id, &types),
        Err(DecodeError::Short)
    );
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(decode(&longer, id, &types), Err(DecodeError::Leftover(1)));
}

#[test]
fn deep_types_and_absurd_lengths_are_refused_quickly() {
    let (types, id) = registry::<Abyss>();
    assert_eq!(decode(&[], id, &types), Err(DecodeError::TooDeep));
    let (types, id) = registry::<Vec<()>>();
    let absurd = codec::Compact(u32::MAX).encode();
    assert_eq!(decode(&absurd, id, &types), Err(DecodeError::TooMany));
    let (types, id) = registry::<Vec<u64>>();
    assert_eq!(decode(&absurd, id, &types), Err(DecodeError::Short));
    let (types, id) = registry::<Vec<u8>>();
    assert_eq!(decode(&absurd, id, &types), Err(DecodeError::Short));
    assert_eq!(
        decode(&[], 9999, &types),
        Err(DecodeError::UnknownType(9999))
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (types, id) = registry::<Sample>();
        let _ = decode(&bytes, id, &types);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_real_types_never_panics() {
    let chain = start(2, |_| ()).await;
    let head = connect(&[&chain]).await.head().await.unwrap();
    let runtime = head.runtime();
    let run = |bytes: &[u8]| {
        for method in ["get_metagraph", "get_selective_metagraph"] {
            if let Ok(value) = runtime.api_answer("SubnetInfoRuntimeApi", method, bytes) {
                let _ = from_columns(&value);
            }
        }
    };
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    TestRunner::default()
        .run(&bytes, |mut bytes| {
            run(&bytes);
            // `Some`, so that the columns are reached.
            bytes.insert(0, 1);
            run(&bytes);
            Ok(())
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_metadata_never_panics() {
    let chain = start(1, |_| ()).await;
    let node = WsClientBuilder::default()
        .build(chain.ws_url())
        .await
        .unwrap();
    let call = rpc_params!["Metadata_metadata_at_version", "0x10000000"];
    let answer: String = node.request("state_call", call).await.unwrap();
    let answer = hex::decode(&answer[2..]).unwrap();
    let start = answer
        .windows(4)
        .position(|window| window == b"meta")
        .unwrap();
    let good = &answer[start..];
    Runtime::new(1, 1, Genesis([0; 32]), good).unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 48,
        ..ProptestConfig::default()
    });
    let damage = (0..good.len(), any::<u8>(), 0..good.len());
    runner
        .run(&damage, |(at, byte, end)| {
            let mut bad = good.to_vec();
            bad[at] = byte;
            if let Ok(runtime) = Runtime::new(1, 1, Genesis([0; 32]), &bad) {
                let _ = runtime.check_extensions();
                let _ = runtime.api_answer("SubnetInfoRuntimeApi", "get_metagraph", &[1, 0, 0]);
            }
            let _ = Runtime::new(1, 1, Genesis([0; 32]), &good[..end]);
            Ok(())
        })
        .unwrap();
}

/// Starts a node that answers every method we use with this text.
async fn node_that_says(answer: String) -> (ServerHandle, Endpoints) {
    let limits = ServerConfig::builder()
        .max_response_body_size(64 << 20)
        .build();
    let server = Server::builder()
        .set_config(limits)
        .build("127.0.0.1:0")
        .await
        .unwrap();
    let url = format!("ws://{}", server.local_addr().unwrap());
    let mut module = RpcModule::new(answer);
    for method in [
        "chain_getBlockHash",
        "chain_getHeader",
        "state_getRuntimeVersion",
        "state_call",
    ] {
        module
            .register_method(method, |_, answer, _| answer.clone())
            .unwrap();
    }
    (
        server.start(module),
        Endpoints::resolve(None, &[url]).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_and_oversize_answers_are_errors() {
    for answer in [
        String::new(),
        "0x".repeat(40),
        format!("0x{}", "ab".repeat(32)),
        "x".repeat(30 << 20),
    ] {
        let (_server, endpoints) = node_that_says(answer).await;
        let error = Client::connect(&endpoints, deadlines()).await.unwrap_err();
        assert_eq!(error.kind(), FaultKind::Outside, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_chain_is_the_operators_mistake() {
    let chain = start(1, |_| ()).await;
    let mut endpoints = Endpoints::resolve(None, &[chain.ws_url()]).unwrap();
    endpoints.genesis = Some(Genesis([0x2f; 32]));
    let connected = Client::connect(&endpoints, deadlines());
    // It is told at once, not after every endpoint was tried for as long as a deadline allows.
    let connected = timeout(Duration::from_secs(10), connected).await;
    let error = connected.expect("an answer").unwrap_err();
    assert_eq!(error.kind(), FaultKind::Config);
    assert!(
        error.to_string().contains("serves another chain"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_an_error_within_the_deadline() {
    let chain = start(1, |_| ()).await;
    let endpoints = Endpoints::resolve(None, &[chain.ws_url()]).unwrap();
    chain.stop().await;
    let error = Client::connect(&endpoints, deadlines()).await.unwrap_err();
    assert!(matches!(error, ChainError::Rpc(_)), "{error}");
}

#[test]
fn a_metagraph_whose_columns_differ_in_length_is_refused() {
    let column = |values: Vec<Value>| Value::List(values);
    let names = [
        "coldkeys",
        "active",
        "validator_permit",
        "last_update",
        "block_at_registration",
    ];
    let mut fields = vec![(
        "hotkeys".to_owned(),
        column(vec![Value::Bytes(vec![1; 32])]),
    )];
    fields.extend(names.map(|name| (name.to_owned(), column(vec![]))));
    let error = from_columns(&Value::Record(fields))
        .unwrap_err()
        .to_string();
    insta::assert_snapshot!(error, @"expected columns of one length, found 1 hotkeys, but 0 coldkeys");
    assert_eq!(NETUID.0, 6);
}
