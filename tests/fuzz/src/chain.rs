//! What miners and nodes can put on the chain, and validators into records, to confuse us.

use std::sync::LazyLock;

use chain::{commitments, decode::decode, metagraph::from_columns};
use report::StepRecord;
use scale_info::{MetaType, PortableRegistry, Registry, TypeInfo};
use subnet::{CommitmentRules, Hotkey, ModelId, Uid};
use validator::step::scoring;

/// A record of the Commitments pallet, with some of the kinds its fields have.
#[derive(TypeInfo)]
#[expect(dead_code, reason = "only its shape matters")]
struct Registration {
    #[codec(compact)]
    deposit: u64,
    block: u32,
    info: Info,
}

#[derive(TypeInfo)]
#[expect(dead_code, reason = "only its shape matters")]
struct Info {
    fields: Vec<Data>,
}

#[derive(TypeInfo)]
#[expect(dead_code, reason = "only its shape matters")]
enum Data {
    None,
    Raw0([u8; 0]),
    Raw4([u8; 4]),
    Raw80([u8; 80]),
    Sha256([u8; 32]),
    TimelockEncrypted { encrypted: Vec<u8>, round: u64 },
    BigRaw(Vec<u8>),
}

/// The columns that a metagraph is read from.
#[derive(TypeInfo)]
#[expect(dead_code, reason = "only its shape matters")]
struct Metagraph {
    hotkeys: Vec<[u8; 32]>,
    coldkeys: Vec<[u8; 32]>,
    active: Vec<bool>,
    validator_permit: Vec<bool>,
    last_update: Vec<codec::Compact<u64>>,
    block_at_registration: Vec<codec::Compact<u64>>,
    emission: Vec<codec::Compact<u64>>,
    total_stake: Vec<codec::Compact<u64>>,
    dividends: Vec<codec::Compact<u16>>,
    incentives: Vec<codec::Compact<u16>>,
    consensus: Vec<codec::Compact<u16>>,
}

/// The types above and their ids.
static TYPES: LazyLock<(PortableRegistry, [u32; 2])> = LazyLock::new(|| {
    let mut registry = Registry::new();
    let types = [
        MetaType::new::<Registration>(),
        MetaType::new::<Metagraph>(),
    ];
    let ids = types.map(|ty| registry.register_type(&ty).id);
    (registry.into(), ids)
});

/// SCALE bytes of a commitment or a metagraph: a value, of which what is read is bounded by the
/// bytes it came from.
pub fn commitment_record(bytes: &[u8]) {
    let (types, [registration, metagraph]) = &*TYPES;
    if let Ok(record) = decode(bytes, *registration, types) {
        let commitment = commitments::parse(
            Uid(0),
            Hotkey([7; 32]),
            &record,
            &CommitmentRules::default(),
        );
        let commitment = commitment.expect("a registration is one, whatever is in it");
        // A byte that is not UTF-8 is shown as three.
        assert!(commitment.payload.len() <= 3 * bytes.len());
        if let Ok(model) = commitment.model {
            assert!(commitment.block > 0 && model.repository().len() <= bytes.len());
        }
    }
    if let Ok(value) = decode(bytes, *metagraph, types)
        && let Ok(neurons) = from_columns(&value)
    {
        assert!(neurons.len() * 64 <= bytes.len());
    }
}

/// The text of a commitment: names a model that is written as it is read.
pub fn model_id(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(model) = text.parse::<ModelId>() {
        assert_eq!(model.to_string().parse(), Ok(model));
    }
    if let Ok(hotkey) = text.parse::<Hotkey>() {
        assert_eq!(hotkey.to_string(), text);
    }
}

/// Another validator's step record: is scored without a panic, twice to the same bits, and
/// written as it is read.
pub fn step_record(json: &[u8]) {
    let Ok(mut record) = serde_json::from_slice::<StepRecord>(json) else {
        return;
    };
    let text = |record: &StepRecord| serde_json::to_string(record).expect("it was JSON before");
    let written = text(&record);
    let again = serde_json::from_str(&written).expect("what was written is readable");
    assert_eq!(text(&again), written);
    scoring::score(&mut record);
    let scored = text(&record);
    let mut again: StepRecord = serde_json::from_str(&written).expect("as above");
    scoring::score(&mut again);
    assert_eq!(text(&again), scored);
}
