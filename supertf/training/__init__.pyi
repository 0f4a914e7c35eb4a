from .loop import train as train
from .plan import DEVICES as DEVICES
from .plan import Device as Device
from .plan import Plan as Plan
from .plan import plan_training as plan_training
from .recipes.catalogue import RECIPES as RECIPES
from .recipes.catalogue import recipe as recipe
from .recipes.description import Recipe as Recipe
from .recipes.text import token_files as token_files
from .settings import TrainResult as TrainResult
from .settings import TrainSettings as TrainSettings
from .sliced_loss import SLICE as SLICE
from .sliced_loss import sliced_head as sliced_head
from .task_training import Score as Score
from .task_training import TaskResult as TaskResult
from .task_training import TaskSettings as TaskSettings
from .task_training import score as score
from .task_training import task_config as task_config
from .task_training import train_on_task as train_on_task

# isort: split
# what other rooms also need
from .loop import open_data as open_data
from .optimizer import learning_rate as learning_rate
from .optimizer import make_optimizer as make_optimizer
from .run_folder import cut_metrics as cut_metrics
from .run_folder import data_position as data_position
from .run_folder import window_order as window_order
