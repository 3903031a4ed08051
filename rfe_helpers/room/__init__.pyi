from .report import Report as Report
from .report import read_report as read_report
from .room import Room as Room
from .settings import Settings as Settings
from .settings import read_settings as read_settings
