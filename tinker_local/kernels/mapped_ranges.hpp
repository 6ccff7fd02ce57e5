// Memory that is mapped from files. Where a file becomes shorter, or its disk fails, reading it raises SIGBUS,
// which ends the process. A range that is registered here gets zeros instead, and is marked as lost.
#pragma once

#include <cstdint>

namespace tinker {

// Registers [begin, end), whole pages, and installs the handler of SIGBUS on top of the one that is there.
// Returns the range's number; -1 where there is no room for another one, or no SIGBUS (Windows).
int protect_range(uintptr_t begin, uintptr_t end);

// Whether memory of the range was replaced by zeros.
bool is_range_lost(int number);

// Installs the handler again where somebody has replaced or removed it (faulthandler.disable() does).
void renew_handler();

// Must be called before the memory is unmapped: other memory may come to lie there.
void forget_range(int number);

}  // namespace tinker
