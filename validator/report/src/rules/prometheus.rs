//! The table as alert rules for Prometheus.

use std::fmt::Write as _;

use shared::status::Health;

use super::RULES;

/// Returns the rules as Prometheus takes them, those of the supervisor included.
pub fn prometheus() -> String {
    let mut text = String::from(
        "# Alerts of validator and supervisor, made by `validator alerts` from the table of health rules.\n\
         # In prometheus.yml: rule_files: [alerts.yml]\n\
         groups:\n  - name: finetune-vali\n    rules:\n",
    );
    let mut alert = |name: &str,
                     expr: &str,
                     minutes: i64,
                     severity: &str,
                     what: &str,
                     remedy: &str| {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let _ = write!(
            text,
            "      - alert: {name}\n        expr: {}\n        for: {minutes}m\n        labels:\n          \
             severity: {severity}\n        annotations:\n          summary: {}\n          description: {}\n",
            quoted(expr),
            quoted(what),
            quoted(remedy),
        );
    };
    for rule in &RULES {
        let cause = rule.cause.to_string();
        let name: String = cause
            .split('-')
            .map(|word| word[..1].to_uppercase() + &word[1..])
            .collect();
        let problem = format!("finetune_vali_problem{{cause=\"{cause}\"}}");
        let minutes = rule.call_minutes;
        alert(
            &format!("FinetuneVali{name}"),
            &format!("{problem} == 1"),
            minutes,
            "warning",
            rule.what,
            rule.remedy,
        );
        if rule.worst == Health::Red {
            alert(
                &format!("FinetuneVali{name}Red"),
                &format!("{problem} == 2"),
                minutes.min(5),
                "critical",
                rule.what,
                rule.remedy,
            );
        }
    }
    for (name, expr, minutes, severity, what, remedy) in BESIDES {
        alert(name, expr, minutes, severity, what, remedy);
    }
    text
}

/// Alerts on what a validator that does not run can't say.
const BESIDES: [(&str, &str, i64, &str, &str, &str); 4] = [
    (
        "FinetuneValiStale",
        "time() - finetune_vali_written_timestamp_seconds > 120",
        1,
        "critical",
        "the validator does not write its status",
        "it does not run, or hangs: `supervisor status`, `validator status`",
    ),
    (
        "FinetuneSupervisorChildDown",
        "supervisor_child_up == 0",
        5,
        "critical",
        "the supervisor has no running validator",
        "`supervisor status` says why",
    ),
    (
        "FinetuneSupervisorCrashLoop",
        "increase(supervisor_child_restarts_total[1h]) > 3",
        0,
        "critical",
        "the validator restarts again and again",
        "`supervisor logs` shows its last words",
    ),
    (
        "FinetuneSupervisorUpdateProblem",
        "supervisor_update_problem == 1",
        60,
        "warning",
        "something keeps updates away",
        "`supervisor check` says what",
    ),
];
