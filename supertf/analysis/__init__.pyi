from .attention_statistics import attention_stats as attention_stats
from .attention_statistics import sink_rate as sink_rate
from .entropy import attention_entropy as attention_entropy
from .intervals import holm as holm
from .intervals import mean_interval as mean_interval
from .intervals import p_value as p_value
from .intervals import paired_difference as paired_difference
from .intervals import two_by_two as two_by_two
from .last_words import finds_last_words as finds_last_words
from .losses import loss_by_position as loss_by_position
from .losses import perplexity as perplexity
from .position_probe import probe_positions as probe_positions
from .position_probe import read_positions as read_positions
from .residual_stream import hidden_states as hidden_states
from .residual_stream import residual_stats as residual_stats
from .tasks import task_scores as task_scores

# isort: split
# what other rooms also need
from .attention_statistics import SinkRate as SinkRate
from .intervals import Interval as Interval
from .peak_entries import Peak as Peak
from .peak_entries import peak as peak
from .peak_entries import peaks as peaks
