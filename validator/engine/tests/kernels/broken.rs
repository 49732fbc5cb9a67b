//! Kernels broken on purpose: each check of the simulated GPU finds what it is for.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use e2e::limit::output;
use shared::process::blocking_command;

/// A mistake in a kernel.
struct Mistake {
    /// File, what is written there, what is written instead.
    kernel: &'static str,
    right: &'static str,
    wrong: &'static str,
    /// The test that meets it.
    test: &'static str,
    /// What is said of it.
    found: &'static str,
}

const MISTAKES: [Mistake; 7] = [
    // Bounds: one element behind the last row, beside right results.
    Mistake {
        kernel: "norm.cu",
        right: "    x += (size_t)blockIdx.x * width;\n",
        wrong: "    x += (size_t)blockIdx.x * width;\n    \
                if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) x[width] = bias[0];\n",
        test: "biases_are_added_as_the_tensor_library_does",
        found: "written past the end of an allocation",
    },
    // Unwritten: the last element of each row keeps the poison of new memory.
    Mistake {
        kernel: "rows.cu",
        right: "store(out + i, a);",
        wrong: "if (i + N < width) store(out + i, a);",
        test: "gates_are_those_of_f64",
        found: "NaN, expected",
    },
    // Race: the sum of warps is read before all have written theirs.
    Mistake {
        kernel: "norm.cu",
        right: "of_warp[threadIdx.x / 32] = x;\n    __syncthreads();\n",
        wrong: "of_warp[threadIdx.x / 32] = x;\n",
        test: "norms_are_those_of_f64",
        found: ", expected",
    },
    // Race: a sum is overwritten while others still read the one before.
    Mistake {
        kernel: "norm.cu",
        right: "    __syncthreads(); // nobody reads an earlier sum any more\n",
        wrong: "",
        test: "norms_are_those_of_f64",
        found: ", expected",
    },
    // Race: keys are overwritten while others still read them, and wide blocks differ from narrow ones.
    Mistake {
        kernel: "attention.cu",
        right: "        __syncthreads(); // the values are there, nobody reads the keys any more\n",
        wrong: "",
        test: "attention_is_that_of_f64",
        found: "left == right",
    },
    // Shared memory: queries that nobody copied.
    Mistake {
        kernel: "attention.cu",
        right: "fetch<WIDTH, ROWS>(queries,",
        wrong: "fetch<WIDTH, ROWS / 2>(queries,",
        test: "attention_is_that_of_f64",
        found: "NaN",
    },
    // Mask: a query sees the key after it.
    Mistake {
        kernel: "attention_f32.cu",
        right: "column <= row &&",
        wrong: "column <= row + 1 &&",
        test: "attention_is_that_of_f64",
        found: ", expected",
    },
];

#[test]
#[expect(clippy::disallowed_methods, reason = "a script says where the bed is")]
fn each_mistake_is_found() {
    let Some(bed) = env::var_os("CUDASIM_BED").map(PathBuf::from) else {
        panic!("scripts/test-cudasim names the folder of the simulated driver in CUDASIM_BED");
    };
    for mistake in &MISTAKES {
        let folder = tempfile::tempdir().unwrap();
        let library = broken(&bed, folder.path(), mistake);
        let mut command = blocking_command(env::current_exe().unwrap());
        command
            .args(["--exact", mistake.test])
            .env("LD_LIBRARY_PATH", library)
            .env("CUDASIM_STRICT", "1")
            .stdin(Stdio::null());
        let run = output(&mut command);
        let said =
            [run.stdout, run.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let said = said.concat();
        assert!(!run.status.success(), "{} passed: {said}", mistake.test);
        assert!(said.contains(mistake.found), "{}: {said}", mistake.test);
    }
}

/// Builds the driver with a mistake in a kernel; returns where its libraries are.
#[expect(
    clippy::disallowed_methods,
    reason = "a broken kernel needs no atomic write"
)]
fn broken(bed: &Path, folder: &Path, mistake: &Mistake) -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [kernels, objects] = ["kernels", "objects"].map(|name| folder.join(name));
    for (from, to) in [
        (engine.join("kernels"), &kernels),
        (bed.join("objects"), &objects),
    ] {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let kernel = kernels.join(mistake.kernel);
    let source = fs::read_to_string(&kernel).unwrap();
    assert_eq!(
        source.matches(mistake.right).count(),
        1,
        "{}",
        mistake.right
    );
    fs::write(&kernel, source.replacen(mistake.right, mistake.wrong, 1)).unwrap();
    let mut build = blocking_command(engine.join("../../tests/cudasim/build"));
    let built = output(build.arg(folder).arg(&kernels));
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    folder.join("lib")
}
