# Compiles llama-cpp-python in half of the time: without what tinker-local does not use. The numbers stay the same.
# The build of llama-cpp-python includes this file when pip is given, as in README.md,
#   CMAKE_ARGS="-DCMAKE_PROJECT_llama_cpp_INCLUDE='$PWD/tinker_local/llama/llama.cmake'"

set(LLAMA_BUILD_COMMON OFF)  # what llama.cpp's programs share: their arguments, chat parsers, HTTP

# The arithmetic is ggml's, which is compiled as ever. libllama and libmtmd load files, build graphs and fill batches.
function(tinker_local_compile_faster target)
  if(NOT TARGET ${target} OR MSVC)
    return()
  endif()
  get_target_property(directory ${target} SOURCE_DIR)
  target_compile_options(${target} PRIVATE -O1)
  target_precompile_headers(${target} PRIVATE
    <algorithm> <array> <cmath> <cstdint> <cstdio> <cstring> <functional> <limits> <map> <memory> <mutex> <regex>
    <set> <sstream> <stdexcept> <string> <unordered_map> <unordered_set> <vector>)
  if(EXISTS "${directory}/models/models.h")
    target_precompile_headers(${target} PRIVATE "${directory}/models/models.h")
  endif()
  # What walks over texts and cells keeps its speed. Precompiled headers are only for files with the same options.
  foreach(file llama-vocab llama-kv-cache llama-batch)
    set_source_files_properties("${directory}/${file}.cpp" TARGET_DIRECTORY ${target} PROPERTIES
      COMPILE_OPTIONS -O3 SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
  foreach(file mtmd-helper mtmd-helper-gen)  # which must not see libmtmd's own headers
    set_source_files_properties("${directory}/${file}.cpp" TARGET_DIRECTORY ${target} PROPERTIES
      SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
endfunction()
cmake_language(DEFER CALL tinker_local_compile_faster llama)
cmake_language(DEFER CALL tinker_local_compile_faster mtmd)  # images
