"""Move one unit's values between the columns of a (rows, n) array and a tuple; the arity is chosen per cell."""

from .._jit import unit


@unit
def copy_rows(out, rows, first):
    """out[p, n] = rows[first + p, n]; plain loops, which are faster than an assignment of slices."""
    for p in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[p, i] = rows[first + p, i]


@unit
def take0(x, i):
    return ()


@unit
def take1(x, i):
    return (x[0, i],)


@unit
def take2(x, i):
    return x[0, i], x[1, i]


@unit
def take3(x, i):
    return x[0, i], x[1, i], x[2, i]


@unit
def take4(x, i):
    return x[0, i], x[1, i], x[2, i], x[3, i]


@unit
def put0(x, row, i, values):
    pass


@unit
def put1(x, row, i, values):
    x[row, i] = values[0]


@unit
def put2(x, row, i, values):
    x[row, i] = values[0]
    x[row + 1, i] = values[1]


@unit
def put3(x, row, i, values):
    x[row, i] = values[0]
    x[row + 1, i] = values[1]
    x[row + 2, i] = values[2]


@unit
def put4(x, row, i, values):
    x[row, i] = values[0]
    x[row + 1, i] = values[1]
    x[row + 2, i] = values[2]
    x[row + 3, i] = values[3]


#: by arity; a cell with more states or gates than these needs one more pair here
TAKE = (take0, take1, take2, take3, take4)
PUT = (put0, put1, put2, put3, put4)
