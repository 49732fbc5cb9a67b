//! Times the attention of a GPU on packs of texts of one length: by the blocks that are for short sequences, and by
//! those that are chosen. Prints a line of JSON for each shape.
#![expect(clippy::print_stdout, reason = "the measurements are the output")]

use std::{error::Error, time::Instant};

use candle_core::{DType, Device, Tensor};
use clap::Parser;
use engine::{
    cuda::kernels::{Attend, attention_work},
    device::DeviceSpec,
    heads::Heads,
};
use serde_json::json;

#[derive(Debug, Parser)]
struct Args {
    /// The GPU.
    #[arg(long, default_value = "cuda:0")]
    device: DeviceSpec,
    /// Tokens of a pack.
    #[arg(long, default_value_t = 8192)]
    tokens: usize,
    /// How often to attend to a pack.
    #[arg(long, default_value_t = 50)]
    repeat: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let device = args.device.open()?.devices.remove(0);
    let heads = |queries, keys, dim| Heads { queries, keys, dim };
    // An 8 B Llama's, a 1.6 B StableLM's, and wide ones.
    for heads in [heads(32, 8, 128), heads(32, 32, 64), heads(16, 8, 256)] {
        for length in [550, 1024, 2048, 4096, 8192] {
            if length > args.tokens {
                continue;
            }
            let count = args.tokens / length;
            let pack = Pack::new(heads, length, count, &device)?;
            // Causal: half of all pairs of a query and a key, each with a product for its score and one for its value.
            let pairs = (count * length * length / 2 * heads.queries) as f64;
            let operations = pairs * 4.0 * heads.dim as f64;
            let times = [1, length].map(|longest| pack.time(longest, args.repeat));
            let [short, chosen] = times;
            let (short, chosen) = (short?, chosen?);
            let measured = json!({
                "heads": format!("{} of {}, {} keys", heads.queries, heads.dim, heads.keys),
                "length": length,
                "short_ms": short * 1e3,
                "chosen_ms": chosen * 1e3,
                "short_tflops": operations / short / 1e12,
                "chosen_tflops": operations / chosen / 1e12,
            });
            println!("{measured}");
        }
    }
    Ok(())
}

struct Pack {
    qkv: Tensor,
    work: Tensor,
    heads: Heads,
}

impl Pack {
    fn new(
        heads: Heads,
        length: usize,
        count: usize,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let spans: Vec<_> = (0..count).map(|i| i * length..(i + 1) * length).collect();
        let columns = (heads.queries + 2 * heads.keys) * heads.dim;
        // Numbers from -1 to 1; which ones they are doesn't matter.
        let numbers = Tensor::arange(0, (count * length * columns) as u32, device)?;
        let qkv = numbers.to_dtype(DType::F32)?.affine(0.7, 0.0)?.sin()?;
        Ok(Self {
            qkv: qkv
                .to_dtype(DType::BF16)?
                .reshape((count * length, columns))?,
            work: Tensor::new(attention_work(&spans), device)?,
            heads,
        })
    }

    /// Returns the seconds that attending to the pack takes.
    fn time(&self, longest: usize, repeat: u32) -> candle_core::Result<f64> {
        let attend = Attend {
            heads: self.heads,
            window: None,
            longest,
        };
        let device = self.qkv.device();
        // The first time is not counted.
        self.qkv.apply_op2_no_bwd(&self.work, &attend)?;
        device.synchronize()?;
        let begun = Instant::now();
        for _ in 0..repeat {
            self.qkv.apply_op2_no_bwd(&self.work, &attend)?;
        }
        device.synchronize()?;
        Ok(begun.elapsed().as_secs_f64() / f64::from(repeat))
    }
}
