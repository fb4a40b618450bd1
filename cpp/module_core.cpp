// The module _core. Each operation registers its functions from its own module_<operation>.cpp (RVK_BIND).
#include "dispatch.h"
#include "module.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Kernels on arrays; see rvkernels.ops for the documented functions.";
  m.attr("compiler") = RVK_COMPILER;
  m.attr("flags") = RVK_FLAGS;
  m.attr("isa") = rvk::isa_name(rvk::isa());
  for (auto bind : rvk::bindings()) bind(m);
}
