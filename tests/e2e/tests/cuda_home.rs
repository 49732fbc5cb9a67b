//! `scripts/cuda-home`: programs linked with its archives find CUDA's libraries when they call them.
// The script is for these machines only.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use e2e::{limit, workspace};
use shared::{file::write_atomic, process::blocking_command};

/// Calls functions with arguments in every kind of place: registers, vectors, the stack.
const PROGRAM: &str = r#"
#include <stdio.h>
int cuInit(unsigned);
int curandGenerateNormal(void *, float *, size_t, float, float);
int cublasGemmStridedBatchedEx(long, int, int, int, int, int, long, long, int, int, long, long,
    int, int, long, long, long, int, int, long, int, int, int);
int main(void) {
    for (int i = 0; i < 2; i++)
        printf("%d %d %d\n", cuInit(7), curandGenerateNormal((void *)1, 0, 3, 0.5f, 2.5f),
            cublasGemmStridedBatchedEx(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
                18, 19, 20, 21, 22, 23));
    return 0;
}
"#;

/// The other side: each returns 0 if all arguments arrived.
const CUDA: &str = "int cuInit(unsigned flags) { return flags != 7; }";
const CURAND: &str = "#include <stddef.h>
int curandGenerateNormal(void *g, float *out, size_t n, float mean, float deviation) {
    return g != (void *)1 || out || n != 3 || mean != 0.5f || deviation != 2.5f;
}";
const CUBLAS: &str = "int cublasGemmStridedBatchedEx(long a, int b, int c, int d, int e, int f,
    long g, long h, int i, int j, long k, long l, int m, int n, long o, long p, long q, int r,
    int s, long t, int u, int v, int w) {
    return a != 1 || b != 2 || c != 3 || d != 4 || e != 5 || f != 6 || g != 7 || h != 8 || i != 9
        || j != 10 || k != 11 || l != 12 || m != 13 || n != 14 || o != 15 || p != 16 || q != 17
        || r != 18 || s != 19 || t != 20 || u != 21 || v != 22 || w != 23;
}";

struct Folder(tempfile::TempDir);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_atomic(&path, text.as_bytes()).unwrap();
        path
    }

    /// Makes a shared library under the name by which it is looked for.
    fn library(&self, name: &str, text: &str) {
        let source = self.write(&format!("{name}.c"), text);
        run(
            "cc",
            &["-shared", "-fPIC", "-o"],
            &[&self.path(name), &source],
        );
    }
}

fn run(program: impl AsRef<Path>, arguments: &[&str], paths: &[&Path]) -> (String, String) {
    let mut command = blocking_command(program.as_ref());
    let output = limit::output(command.args(arguments).args(paths));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(
        output.status.success(),
        "{}: {stderr}",
        program.as_ref().display()
    );
    (stdout, stderr)
}

#[test]
fn libraries_are_found_at_the_first_call() {
    let folder = Folder(tempfile::tempdir().unwrap());
    // What of a toolkit the script looks at.
    let nvcc = folder.write(
        "toolkit/bin/nvcc",
        "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n",
    );
    fs::set_permissions(nvcc, fs::Permissions::from_mode(0o755)).unwrap();
    folder.write("toolkit/lib64/libcudart_static.a", "!<arch>\n");

    let home = folder.path("home");
    let script = workspace().join("scripts/cuda-home");
    let toolkit = folder.path("toolkit");
    let (environment, _) = run(script, &["--toolkit"], &[&toolkit, &home]);
    assert!(
        environment.contains(&format!("export CUDA_HOME='{}'", home.display())),
        "{environment}"
    );
    assert_eq!(
        fs::read_link(home.join("bin")).unwrap(),
        toolkit.join("bin")
    );

    let source = folder.write("program.c", PROGRAM);
    let program = folder.path("program");
    let archives = ["cuda", "curand", "cublas"].map(|lib| home.join(format!("lib/lib{lib}.a")));
    let [cuda, curand, cublas] = &archives;
    run("cc", &["-o"], &[&program, &source, cuda, curand, cublas]);

    let call = |libraries: &Path| {
        let mut command = blocking_command(&program);
        let output = limit::output(command.env("LD_LIBRARY_PATH", libraries));
        assert!(output.status.success(), "{output:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    for name in ["libcuda.so.1", "libcurand.so.10", "libcublas.so.13"] {
        folder.library(&format!("empty/{name}"), "");
    }
    let (codes, words) = call(&folder.path("empty"));
    assert_eq!(codes, "100 203 1\n100 203 1\n");
    assert!(
        words.contains("libcuda.so.1 is too old: no cuInit"),
        "{words}"
    );

    folder.library("found/libcuda.so.1", CUDA);
    folder.library("found/libcurand.so.10", CURAND);
    folder.library("found/libcublas.so.13", CUBLAS);
    assert_eq!(
        call(&folder.path("found")),
        ("0 0 0\n0 0 0\n".into(), String::new())
    );
}
