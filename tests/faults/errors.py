"""What can go wrong with a campaign itself."""


class CampaignError(RuntimeError):
    """The campaign cannot go on, or a fault's effect is not what is promised."""


class CannotInject(CampaignError):
    """This machine does not permit to make the fault."""
