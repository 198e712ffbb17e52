// LLD as a function: the ELF driver, its messages returned as a string.

#include "lld/Common/Driver.h"
#include "llvm/Support/raw_ostream.h"

#include <cstdlib>
#include <cstring>
#include <string>

LLD_HAS_DRIVER(elf)

// Runs `ld.lld argv[1..argc]`. Gives LLD's exit status, or -1 where LLD must not be called again
// in this process. `*messages` receives what it wrote, to be freed with
// `waveloom_lld_free`; null where it wrote nothing. Not re-entrant: the caller holds a lock.
extern "C" int waveloom_lld_link(const char *const *argv, size_t argc, char **messages) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  lld::Result result = lld::lldMain(llvm::ArrayRef<const char *>(argv, argc), stream, stream,
                                    {{lld::Gnu, &lld::elf::link}});
  stream.flush();
  *messages = text.empty() ? nullptr : strdup(text.c_str());
  return result.canRunAgain ? result.retCode : -1;
}

extern "C" void waveloom_lld_free(char *messages) { free(messages); }
