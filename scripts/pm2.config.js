// pm2 keeps the supervisor; the supervisor keeps the validator.
//
//   cd ~/finetune-vali && pm2 start scripts/pm2.config.js && pm2 save
//
// Your flags of the validator go into VALIDATOR_FLAGS, those of the supervisor into
// SUPERVISOR_* variables (see `supervisor --help`).

const { homedir } = require("os");

module.exports = {
  apps: [
    {
      name: "finetune-vali-updater",
      // In full: pm2 would take the name for the folder `supervisor` of this checkout.
      script: `${homedir()}/.local/bin/supervisor`,
      interpreter: "none",
      args: `--child-name finetune-vali -- ${process.env.VALIDATOR_FLAGS || ""}`,
      // The supervisor gives its child up to two minutes to finish what is in flight.
      kill_timeout: 150000,
      // It also stops the child by itself; pm2 must not kill it in passing.
      treekill: false,
      // Wrong command line, another instance, wrong configuration: a restart will not help. Not 0:
      // pm2 takes a killed program for one that ended with 0, and would leave it down.
      stop_exit_codes: [2, 77, 78],
      exp_backoff_restart_delay: 1000,
    },
  ],
};
