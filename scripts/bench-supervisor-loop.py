"""Stands in for the old updater: pull, build, delete, start, through pm2. Arguments: PM2 SECONDS."""
import subprocess, sys, time

pm2, seconds = sys.argv[1], float(sys.argv[2])


def run(*line):
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def start():
    run("cargo", "build", "--locked", "--target-dir", "target")
    subprocess.run([pm2, "delete", "bench"], capture_output=True)
    run(pm2, "start", "target/debug/app", "--name", "bench", "--interpreter", "none")


commit = run("git", "rev-parse", "HEAD")
start()
while True:
    time.sleep(seconds)
    run("git", "pull", "-q", "--rebase", "--autostash")
    if commit != run("git", "rev-parse", "HEAD"):
        commit = run("git", "rev-parse", "HEAD")
        start()
