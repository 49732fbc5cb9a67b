# A menu; the logic is in cargo, .ci/run and scripts/.

default:
    @just --list

# Everything that must pass before a change lands
ci:
    .ci/run

# Format the code
fmt:
    cargo fmt --all

# Lints, as CI has them
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests
test:
    cargo test --workspace

# Fuzz every parser of hostile input for a minute together, or some of them for longer
fuzz *args:
    scripts/fuzz {{args}}

# Review snapshots of what people read
snap:
    cargo insta review

# Documentation of all crates
doc:
    cargo doc --workspace --no-deps --open

# Licenses, sources and bans of dependencies
deny:
    cargo deny check bans licenses sources

# The whole story on this machine: chain, miners, validator, update
demo:
    cargo run -p localnet -- demo
