from .catalogue import RECIPES as RECIPES
from .catalogue import recipe as recipe
from .description import Recipe as Recipe
from .text import token_files as token_files
