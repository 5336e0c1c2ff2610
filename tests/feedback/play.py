"""What the tests of controllers share: to play a sequence of observations to one."""

from stepsize.feedback import Seen


def play(controller, values, *, start=0):
    """Give the updates, one by one."""
    state, updates = controller.init(), []
    for t, value in enumerate(values, start):
        updates.append(controller.update(state, Seen(t, **{controller.sees: value})))
        state = updates[-1].state
    return updates


def factors(controller, values):
    return [update.factor for update in play(controller, values)]
