"""Numba's compiler with one step more: what kernels borrow they do not count, what is inlined is not compiled.

Every view of an array, such as a slice ``states[t, b0:b1]`` in a loop over steps, counts a reference to the owner of
its memory with an atomic operation, twice. Threads that work on one array then fight for the cache line of that count.
The caller holds the arrays while a kernel runs, so the counts are of no use: here the owner is taken off every array
that a kernel is given, and an array without an owner is not counted. Arrays made inside a kernel keep theirs.

Numba optimises a function and makes machine code of it before it links it into its callers; where it never runs by
itself, that is for nothing.

LLVM makes vectors of 256 bits for Intel's processors with AVX-512, because the first of them ran slower with wider
ones. Kernels ask for whole registers: their products use them anyhow, and activations take half the time.
"""

import functools

import llvmlite.binding as llvm
from numba.core import cgutils, ir, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.untyped_passes import IRProcessing
from numba.extending import intrinsic

FEATURES = llvm.get_host_cpu_features()
#: Of the widest vector register.
VECTOR_BYTES = 64 if FEATURES.get("avx512f") else 32 if FEATURES.get("avx") else 16
_WHOLE_REGISTERS = f'"prefer-vector-width"="{8 * VECTOR_BYTES}"'


@intrinsic
def _borrowed(typingctx, value):
    """The same array without its owner; of a tuple, every array in it. Anything else as it is."""

    def codegen(context, builder, signature, args):
        def borrow(kind, value):
            if isinstance(kind, types.Array):
                array = context.make_array(kind)(context, builder, value)
                array.meminfo = cgutils.get_null_value(array.meminfo.type)
                array.parent = cgutils.get_null_value(array.parent.type)
                return array._getvalue()
            if isinstance(kind, types.BaseTuple):
                items = [borrow(item, builder.extract_value(value, i)) for i, item in enumerate(kind)]
                return context.make_tuple(builder, kind, items)
            return value

        return borrow(signature.args[0], args[0])

    return value(value), codegen


@register_pass(mutates_CFG=False, analysis_only=False)
class _BorrowArguments(FunctionPass):
    """Replace every argument by ``_borrowed`` of it, where the function begins."""

    _name = "rnngrad_borrow_arguments"

    def __init__(self):
        FunctionPass.__init__(self)

    def run_pass(self, state):
        block = state.func_ir.blocks[min(state.func_ir.blocks)]
        body = []

        def assign(value, target):
            body.append(ir.Assign(value, target, statement.loc))
            state.func_ir._definitions[target.name] = [value]

        for statement in block.body:
            if isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Arg):
                scope, loc = statement.target.scope, statement.loc
                given, function = scope.redefine("given", loc), scope.redefine("borrowed", loc)
                assign(statement.value, given)
                assign(ir.Global("_borrowed", _borrowed, loc), function)
                assign(ir.Expr.call(function, [given], (), loc), statement.target)
            else:
                body.append(statement)
        block.body = body
        return True


class _OwnLibrary(FunctionPass):
    """Make the library that a function's code goes to, where Numba would, and change how it works."""

    def __init__(self):
        FunctionPass.__init__(self)

    def run_pass(self, state):
        state.library = state.targetctx.codegen().create_library(state.func_id.func_qualname)
        self.change(state.library, state.flags)
        return False

    def change(self, library, flags):
        raise NotImplementedError


@register_pass(mutates_CFG=False, analysis_only=True)
class _LeaveToCallers(_OwnLibrary):
    """Translate only: optimisation and machine code are left to the functions that this one is linked into."""

    _name = "rnngrad_leave_to_callers"

    def change(self, library, flags):
        library._optimize_final_module = lambda: None
        library._finalize_final_module = functools.partial(setattr, library, "_finalized", True)
        flags.no_compile = True


@register_pass(mutates_CFG=False, analysis_only=True)
class _FillRegisters(_OwnLibrary):
    """Ask for whole vector registers, by an attribute of every function."""

    _name = "rnngrad_fill_registers"

    def change(self, library, flags):
        library.enable_object_caching()
        add = library.add_ir_module

        def add_with_attribute(module):
            for function in module.functions:
                if not function.is_declaration:
                    set.add(function.attributes, _WHOLE_REGISTERS)  # llvmlite's own add knows no attributes with values
            add(module)

        library.add_ir_module = add_with_attribute


class _Compiler(CompilerBase):
    """The usual pipeline with a pass more."""

    def define_pipelines(self):
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        self.add(passes)
        passes.finalize()
        return [passes]


class KernelCompiler(_Compiler):
    """The arguments borrowed, the vector registers filled."""

    def add(self, passes):
        passes.add_pass_after(_BorrowArguments, IRProcessing)
        passes.add_pass_after(_FillRegisters, IRProcessing)


class InlinedCompiler(_Compiler):
    """Neither optimised nor made machine code."""

    def add(self, passes):
        passes.add_pass_after(_LeaveToCallers, IRProcessing)
